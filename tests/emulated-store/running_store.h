// SPDX-License-Identifier: Apache-2.0
// A StoreServer with an event loop of its own in a thread, listening on Unix sockets in a fresh
// directory: one socket a domain, as xen-emu does it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include "tools/xen-emu/store/store_server.h"

namespace vmsg::emu::store {

class RunningStore {
 public:
  explicit RunningStore(Options options = {});
  ~RunningStore();

  // The socket whose clients act as `domain`; made at the first call.
  std::string Socket(uint16_t domain);
  // Runs in the server's thread and returns when it is done.
  void Run(const std::function<void(StoreServer&)>& work);

 private:
  void Loop();

  std::string directory_;
  int epoll_ = -1;
  int wake_ = -1;      // eventfd: work_ is set
  int finished_ = -1;  // eventfd: it is done
  bool stop_ = false;
  std::function<void(StoreServer&)> work_;  // handed over by wake_ and finished_
  std::map<int, uint16_t> listeners_;       // only used in the server's thread
  StoreServer server_;
  std::thread thread_;
};

// Two connected stream sockets: `client` blocks, `server` is for StoreServer::AddConnection.
struct SocketPair {
  int client;
  int server;
};
SocketPair MakeSocketPair();

}  // namespace vmsg::emu::store
