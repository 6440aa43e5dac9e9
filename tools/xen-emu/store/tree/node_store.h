// SPDX-License-Identifier: Apache-2.0
// The tree of nodes with its rules: permissions, quotas, transactions. Knows neither connections
// nor watches; it reports what changed. Single-threaded.
//
// Errors are the errno values that the wire protocol names; 0 is success.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>

#include "absl/strings/string_view.h"
#include "tools/xen-emu/store/tree/domains.h"
#include "tools/xen-emu/store/tree/permissions.h"
#include "tools/xen-emu/store/tree/quotas.h"
#include "tools/xen-emu/store/tree/transaction.h"

namespace vmsg::emu::store {

// One change, valid during the call that reports it. A watcher may learn of it when one of the
// permissions that are not nullptr lets it read.
struct Change {
  absl::string_view path;
  bool exact;  // only for watches on this very path, not for those on its parents
  std::array<const Permissions*, 3> seen_by;
};

// On whose behalf, and inside which transaction (nullptr: none).
struct Caller {
  Requester requester;
  Transaction* transaction = nullptr;
};

class NodeStore {
 public:
  // `changed` is called for every change outside transactions and at commits. `domains` outlives
  // this.
  NodeStore(DomainTable& domains, const Quotas& quotas, std::function<void(const Change&)> changed);

  // Paths are absolute; EINVAL for one that is not valid. ENOENT turns into EACCES where the caller
  // may not know.
  int Read(const Caller& caller, const std::string& path, NodeRef* node);
  int Write(const Caller& caller, const std::string& path, absl::string_view value);
  int MakeDirectory(const Caller& caller, const std::string& path);
  // With everything below. A missing node is fine when its parent exists.
  int Remove(const Caller& caller, const std::string& path);
  int SetPermissions(const Caller& caller, const std::string& path, Permissions permissions);

  // Whether the transaction commits or fails, it is over. EAGAIN: something it touched was changed
  // by others; ENOMEM: an earlier failure spoilt it; ENOSPC: the node quota.
  int Commit(const Requester& requester, Transaction& transaction);

  // Deletes the nodes that the domain owns, with all below them.
  void RemoveOwnedBy(uint32_t domain);

  size_t size() const { return nodes_.size(); }

 private:
  struct Fetched {
    NodeRef node;   // nullptr on errors
    int error = 0;  // ENOENT or ENOSPC
  };

  Fetched Fetch(const Caller& caller, const std::string& path);
  NodeRef Stored(const std::string& path) const;
  int Get(const Caller& caller, const std::string& path, unsigned rights, NodeRef* node);
  int ErrorFromParents(const Caller& caller, const std::string& path, unsigned rights, int error);
  int Create(const Caller& caller, const std::string& path, absl::string_view value);
  int Put(const Caller& caller, const std::string& path, Node node, bool check_size);
  void Erase(const Caller& caller, const std::string& path);
  int RemoveTree(const Caller& caller, const std::string& path);
  int RemoveBelow(const Caller& caller, const std::string& path, const std::string& top,
                  const NodeRef& node);
  void RemoveOwnedBelow(uint32_t domain, const std::string& path);
  void CountOwned(const Caller& caller, uint32_t domain, int64_t change);
  void MarkStale(Permissions& permissions, uint64_t generation) const;
  void Report(const Caller& caller, const std::string& path, bool exact, const NodeRef& node,
              const Permissions* before);

  DomainTable& domains_;
  const Quotas quotas_;
  const std::function<void(const Change&)> changed_;
  std::unordered_map<std::string, NodeRef> nodes_;
};

}  // namespace vmsg::emu::store
