// SPDX-License-Identifier: Apache-2.0
// The xenstored of the emulated Xen: speaks xen/io/xs_wire.h over stream sockets, so that
// libxenstore and the xenstore-* programs work against it unchanged. Semantics follow the C
// xenstored of Xen 4.17 (permissions, quotas, watches, transactions).
//
// Single-threaded: every member is called from one thread, the one of the event loop that polls
// poll_fd(). Nothing blocks. Memory a client can cause is bounded: quotas for unprivileged domains,
// and for every connection a cap on what it has not read yet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/xen-emu/store/tree/quotas.h"

namespace vmsg::emu::store {

struct Options {
  Quotas quotas;
  // Bytes a connection may leave unread before its requests are no longer read.
  size_t output_pause_bytes = size_t{64} * 1024;
  // Bytes a connection of domain 0 may leave unread before it is closed; for the others see
  // Quotas::event_bytes. Events equal to one that still waits are not queued again, as in
  // xenstored.
  size_t output_close_bytes = size_t{8} * 1024 * 1024;
  size_t connections = 4096;
  // Whether INTRODUCE of this domain can succeed; every domain exists when not set.
  std::function<bool(uint16_t domain)> domain_exists;
};

// One entry of a node's permissions: 'n', 'r', 'w' or 'b' and the domain it is for.
struct NodePermission {
  char access;
  uint16_t domain;
};

class StoreServer {
 public:
  explicit StoreServer(Options options = {});
  ~StoreServer();  // closes every connection
  StoreServer(const StoreServer&) = delete;
  StoreServer& operator=(const StoreServer&) = delete;

  // Readable when Dispatch has something to do: put it into the caller's epoll, level-triggered.
  int poll_fd() const;
  // Serves what is ready, a bounded amount of it; to be called again while poll_fd() is readable.
  void Dispatch();

  // Takes ownership of `fd`, a connected stream socket (accepted by the caller; made nonblocking
  // here), also when it fails. The connection acts as `domain`; 0 is privileged. Any number of
  // connections may act as one domain. ResourceExhausted: too many connections.
  absl::Status AddConnection(int fd, uint16_t domain);

  // The domain is known from now on (IS_DOMAIN_INTRODUCED answers true) and @introduceDomain fires.
  // Domain 0 always is. AlreadyExists: introduced before (nothing fires). Connections of a domain
  // that is not introduced are served all the same.
  absl::Status IntroduceDomain(uint16_t domain);
  // The domain is gone: its connections are closed with their watches and transactions, the nodes
  // it owns are removed with all below them (their watches fire), then @releaseDomain fires. Where
  // it is listed in the permissions of other nodes it stays listed, but the entry does not count
  // for a later domain of that id. What domain 0 owns in /local/domain/<id> is the toolstack's to
  // remove. NotFound: not known.
  absl::Status ReleaseDomain(uint16_t domain);
  // The domain was shut down or crashed but still exists: only @releaseDomain fires, once.
  absl::Status ShutDownDomain(uint16_t domain);
  bool IsIntroduced(uint16_t domain) const;

  // The toolstack's own accesses, as domain 0 and outside any transaction; watches fire. Paths are
  // absolute. Write creates missing parents, which inherit their permissions. NotFound and
  // InvalidArgument name the path.
  absl::Status Write(absl::string_view path, absl::string_view value);
  absl::StatusOr<std::string> Read(absl::string_view path) const;
  absl::Status SetPermissions(absl::string_view path, const std::vector<NodePermission>& entries);
  absl::Status Remove(absl::string_view path);

  // A fault for tests: the next `count` watch events to this domain are lost. One domain at a time.
  void LoseEvents(uint16_t domain, uint32_t count);

  struct Counts {
    size_t nodes, watches, transactions, connections, unread_bytes;
  };
  Counts counts() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmsg::emu::store
