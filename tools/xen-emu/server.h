// SPDX-License-Identifier: Apache-2.0
// xen-emu's sockets and its loop.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grants/emulated/connection.h"
#include "tools/xen-emu/client.h"
#include "tools/xen-emu/commands.h"
#include "tools/xen-emu/domains/domain.h"
#include "tools/xen-emu/hypervisor.h"
#include "tools/xen-emu/store/store_server.h"

namespace vmsg::emu {

// Serves one emulated machine below a directory, from one thread:
//   <directory>/hypervisor, xenstored                  Dom0's sockets
//   <directory>/domains/<domid>/hypervisor, xenstored  a guest's
class Server {
 public:
  // `directory` is made when it is missing. FailedPrecondition: another xen-emu serves it.
  static absl::StatusOr<std::unique_ptr<Server>> Create(const std::string& directory,
                                                        const DomainLimits& limits);
  ~Server();  // removes the sockets

  // Serves until `stop_fd` is readable (or hung up).
  absl::Status Run(int stop_fd);

 private:
  struct Listener {
    OwnedFd socket;
    std::shared_ptr<Domain> domain;
    bool store;
    std::string path;
  };

  explicit Server(std::string directory) : directory_(std::move(directory)) {}
  absl::Status Start(const DomainLimits& limits);
  absl::Status TakeDirectory();

  absl::Status OpenSockets(const std::shared_ptr<Domain>& domain);
  absl::Status Listen(const std::shared_ptr<Domain>& domain, const char* name, bool store);
  void CloseSockets(const std::shared_ptr<Domain>& domain);
  std::string DomainDirectory(const Domain& domain) const;
  std::string Describe() const;

  void Accept(Listener& listener);
  void Add(OwnedFd socket, const std::shared_ptr<Domain>& domain);
  void Close(uint64_t id);
  bool Watch(int fd, uint32_t events, uint64_t id, int operation);

  void ServeBatch();
  // Releases, and what a process left when it died, come before anybody's questions: a client that
  // knows of them (its own earlier request, a child it waited for) finds them done.
  void ReadAndRelease(uint64_t id, uint32_t events);
  void ServeRequests(uint64_t id);
  void ServeStore();
  int TimeoutMilliseconds() const;

  const std::string directory_;
  OwnedFd lock_;
  OwnedFd epoll_;
  OwnedFd spare_;  // given up to refuse a connection when there are no more file descriptors
  std::unique_ptr<DomainList> domains_;
  std::unique_ptr<store::StoreServer> store_;
  std::unique_ptr<Hypervisor> hypervisor_;
  std::unique_ptr<Commands> commands_;
  std::map<uint64_t, Listener> listeners_;
  std::unordered_map<uint64_t, std::unique_ptr<Client>> clients_;
  uint64_t next_id_;
  uint64_t protocol_errors_ = 0;
  std::vector<epoll_event> events_;
  bool stop_ = false;
  bool store_watched_ = true;
  absl::Time store_due_ = absl::InfiniteFuture();
};

}  // namespace vmsg::emu
