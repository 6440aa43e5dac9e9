// SPDX-License-Identifier: Apache-2.0
// What each request does: from a message to an answer and the watch events it causes, all of them
// put into the sessions' output queues. No sockets. Single-threaded.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tools/xen-emu/store/session.h"
#include "tools/xen-emu/store/store_server.h"
#include "tools/xen-emu/store/tree/domains.h"
#include "tools/xen-emu/store/tree/node_store.h"
#include "tools/xen-emu/store/wire/message.h"

namespace vmsg::emu::store {

class Operations {
 public:
  // `woken` is called for a session that has something to send or is to be closed; it only notes
  // that, for it is called in the middle of an operation.
  Operations(const Options& options, std::function<void(Session&)> woken);

  // A session is told of events between the two; it outlives that.
  void Attach(Session& session);
  void Detach(Session& session);

  void Handle(Session& session, const Message& message);

  // See StoreServer; false for AlreadyExists and NotFound there.
  bool Introduce(uint16_t domain);
  bool Release(uint16_t domain);
  bool ShutDown(uint16_t domain);
  bool IsIntroduced(uint32_t domain) const;

  void LoseEvents(uint16_t domain, uint32_t count) {
    losing_domain_ = domain;
    losing_ = count;
  }

  NodeStore& nodes() { return nodes_; }
  size_t watches() const;
  size_t transactions() const;

 private:
  struct Request {
    Session& session;
    const Message& message;
    Caller caller;
    std::string reply;
    std::string first_event;  // a new watch's: sent after the answer
  };
  // An errno value, 0 for success. The reply is "OK" unless set.
  using Handler = int (Operations::*)(Request&);
  struct Operation {
    Handler handler = nullptr;
    bool ignores_transaction = false;
    bool privileged = false;
  };
  static std::array<Operation, 32> Table();

  int Directory(Request& request);
  int DirectoryPart(Request& request);
  int Read(Request& request);
  int GetPermissions(Request& request);
  int Write(Request& request);
  int MakeDirectory(Request& request);
  int Remove(Request& request);
  int SetPermissions(Request& request);
  int AddWatch(Request& request);
  int RemoveWatch(Request& request);
  int ResetWatches(Request& request);
  int StartTransaction(Request& request);
  int EndTransaction(Request& request);
  int IntroduceDomain(Request& request);
  int ReleaseDomain(Request& request);
  int ResumeDomain(Request& request);
  int SetTarget(Request& request);
  int GetDomainPath(Request& request);
  int IsDomainIntroduced(Request& request);

  int Serve(Request& request);
  int ReadNode(Request& request, NodeRef* node);
  Domain* DomainArgument(const Request& request, uint32_t* id, int* error);
  Requester RequesterOf(const Session& session) const;
  void Forget(Session& session);  // its watches and transactions
  void Fire(const Change& change);
  void FireSpecial(absl::string_view name);
  void SendEvent(Session& session, absl::string_view path, absl::string_view token);

  const Options options_;
  const std::function<void(Session&)> woken_;
  DomainTable domains_;
  NodeStore nodes_;
  std::map<std::string, Permissions> special_;  // who may watch @introduceDomain, @releaseDomain
  std::vector<Session*> sessions_;
  uint16_t losing_domain_ = 0;
  uint32_t losing_ = 0;  // events of that domain still to be lost
};

}  // namespace vmsg::emu::store
