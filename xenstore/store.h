// SPDX-License-Identifier: Apache-2.0
// A xenstore connection. Follows xenstore.h (libxenstore); limits are those of xen/io/xs_wire.h.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace vmsg::xenstore {

// Who may do what with a node (xs_permissions). The first entry is the owner and what everybody
// else may do.
enum class Access { kNone, kRead, kWrite, kBoth };
struct Permission {
  uint16_t domain;
  Access access;
  bool operator==(const Permission&) const = default;
};

// Reads and writes inside one transaction, or directly when it comes from Store itself. Paths are
// absolute, or relative to the caller's own /local/domain/<id>. Values are bytes, at most 4096 with
// the rest of the packet; a NUL inside is passed on as it is. NotFound: no such node.
// PermissionDenied. InvalidArgument: a malformed path or value. ResourceExhausted: a quota, named
// as xenstored reports it. Unavailable: the connection is gone.
class NodeAccess {
 public:
  virtual ~NodeAccess() = default;
  virtual absl::StatusOr<std::string> Read(absl::string_view path) = 0;
  virtual absl::Status Write(absl::string_view path, absl::string_view value) = 0;
  virtual absl::Status MakeDirectory(absl::string_view path) = 0;
  virtual absl::Status Remove(absl::string_view path) = 0;
  virtual absl::StatusOr<std::vector<std::string>> List(absl::string_view path) = 0;
  virtual absl::StatusOr<std::vector<Permission>> GetPermissions(absl::string_view path) = 0;
  virtual absl::Status SetPermissions(absl::string_view path,
                                      const std::vector<Permission>& permissions) = 0;
};

struct WatchEvent {
  std::string path;   // what changed: below the watched path, relative when the watch was
  std::string token;  // what Watch was given
};

// Thread-compatible: one thread at a time, except that fd() may be polled from another.
class Store : public NodeAccess {
 public:
  // Runs `body` in a transaction and commits; runs it again when the commit meets EAGAIN, up to a
  // fixed number of times (then Aborted). An error from body aborts the transaction and is
  // returned.
  virtual absl::Status Transaction(const std::function<absl::Status(NodeAccess&)>& body) = 0;

  // One event is delivered at once for the watch itself. Special paths: @introduceDomain,
  // @releaseDomain (Dom0 only).
  virtual absl::Status Watch(absl::string_view path, absl::string_view token) = 0;
  virtual absl::Status Unwatch(absl::string_view path, absl::string_view token) = 0;

  // Readable when TakeWatchEvents may return something.
  virtual int fd() const = 0;
  // What has arrived, duplicates (same path and token) folded, at most `max` events; never blocks.
  // More may remain: call until empty. Unavailable when the connection to xenstored is lost.
  virtual absl::StatusOr<std::vector<WatchEvent>> TakeWatchEvents(size_t max = 256) = 0;

  virtual absl::StatusOr<bool> IsDomainIntroduced(uint16_t domain) = 0;
};

// `socket`: a Unix socket of xenstored (grants::Platform::store_socket()); empty for libxenstore's
// own default. Works the same against the real xenstored, oxenstored and xen-emu. Not to be called
// from two threads at once with different sockets (libxenstore takes the path from the
// environment).
absl::StatusOr<std::unique_ptr<Store>> OpenStore(const std::string& socket);

}  // namespace vmsg::xenstore
