// SPDX-License-Identifier: Apache-2.0
// A store in memory, for faults that a real one cannot be asked for. One tree, any number of
// connections, each acting as one domain; permissions and watches as on xenstored, no quotas.
// Single-threaded.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "xenstore/store.h"

namespace vmsg::xenstore {

class MemoryStore;

class MemoryTree {
 public:
  struct Node {
    std::string value;
    std::vector<Permission> permissions;
  };
  using Nodes = std::map<std::string, Node>;

  MemoryTree();
  // A connection of this domain; the tree must outlive it.
  std::unique_ptr<MemoryStore> Connect(uint16_t domain);

  // As the toolstack makes one: /local/domain/<id> with name, domid, device and backend,
  // introduced.
  void CreateDomain(uint16_t domain, const std::string& name);
  // Its nodes vanish and @releaseDomain fires.
  void DestroyDomain(uint16_t domain);

  // The next commits meet EAGAIN.
  void FailCommits(int count) { failing_commits_ = count; }
  // The write after `skip` more of them, and those that follow, get this answer. OK: no fault.
  void FailWrites(int skip, absl::Status status) {
    writes_to_fault_ = skip;
    write_fault_ = std::move(status);
  }
  // Everything on every connection answers Unavailable.
  void LoseConnections() { lost_ = true; }

  // The tree outside any transaction and above permissions.
  std::string Value(const std::string& path) const;  // "(none)": no such node
  bool Has(const std::string& path) const { return nodes_.contains(path); }
  void Set(const std::string& path, const std::string& value);
  void Erase(const std::string& path);
  const Nodes& nodes() const { return nodes_; }
  size_t watch_count() const;
  uint64_t operations() const { return operations_; }

 private:
  friend class MemoryStore;
  friend class MemoryAccess;
  void Changed(const std::set<std::string>& paths, const std::set<std::string>& removed);
  void Fire(const std::string& special);

  Nodes nodes_;
  std::set<uint16_t> introduced_;
  std::set<MemoryStore*> connections_;
  uint64_t generation_ = 0;
  uint64_t operations_ = 0;
  int failing_commits_ = 0;
  int writes_to_fault_ = 0;
  absl::Status write_fault_;
  bool lost_ = false;
};

class MemoryStore final : public Store {
 public:
  MemoryStore(MemoryTree* tree, uint16_t domain);
  ~MemoryStore() override;

  absl::StatusOr<std::string> Read(absl::string_view path) override;
  absl::Status Write(absl::string_view path, absl::string_view value) override;
  absl::Status MakeDirectory(absl::string_view path) override;
  absl::Status Remove(absl::string_view path) override;
  absl::StatusOr<std::vector<std::string>> List(absl::string_view path) override;
  absl::StatusOr<std::vector<Permission>> GetPermissions(absl::string_view path) override;
  absl::Status SetPermissions(absl::string_view path,
                              const std::vector<Permission>& permissions) override;
  absl::Status Transaction(const std::function<absl::Status(NodeAccess&)>& body) override;
  absl::Status Watch(absl::string_view path, absl::string_view token) override;
  absl::Status Unwatch(absl::string_view path, absl::string_view token) override;
  int fd() const override { return event_fd_; }
  absl::StatusOr<std::vector<WatchEvent>> TakeWatchEvents(size_t max) override;
  absl::StatusOr<bool> IsDomainIntroduced(uint16_t domain) override;

  // Called before watch events are taken: where a test lets the other side act.
  std::function<void()> before_events;
  std::function<void()> before_unwatch;
  // Watches refused with ResourceExhausted from then on.
  bool watch_quota_reached = false;

 private:
  friend class MemoryTree;
  struct Watched {
    std::string path, token, given;
  };
  std::string Absolute(absl::string_view path) const;
  void Deliver(const Watched& watch, const std::string& path);

  MemoryTree* tree_;
  uint16_t domain_;
  int event_fd_;
  std::vector<Watched> watches_;
  std::vector<WatchEvent> events_;
};

}  // namespace vmsg::xenstore
