// SPDX-License-Identifier: Apache-2.0
#include "tests/xenstore/memory_store.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace vmsg::xenstore {
namespace {

constexpr int kTransactionAttempts = 64;

bool IsBelow(const std::string& path, const std::string& top) {
  return path == top || absl::StartsWith(path, absl::StrCat(top, "/"));
}

std::string Parent(const std::string& path) { return path.substr(0, path.rfind('/')); }

bool Allows(Access access, Access wanted) { return access == Access::kBoth || access == wanted; }

}  // namespace

// Reads and writes on one version of the tree.
class MemoryAccess final : public NodeAccess {
 public:
  MemoryAccess(MemoryTree* tree, MemoryTree::Nodes* nodes, uint16_t domain)
      : tree_(tree), nodes_(nodes), domain_(domain) {}

  absl::StatusOr<std::string> Read(absl::string_view path) override {
    absl::StatusOr<MemoryTree::Node*> node = Find(path, Access::kRead);
    if (!node.ok()) return node.status();
    return (*node)->value;
  }
  absl::Status Write(absl::string_view path, absl::string_view value) override {
    if (!tree_->write_fault_.ok() && tree_->writes_to_fault_-- <= 0) return tree_->write_fault_;
    return Put(path, std::string(value));
  }
  absl::Status MakeDirectory(absl::string_view path) override {
    if (nodes_->contains(Absolute(path))) return absl::OkStatus();
    return Put(path, "");
  }
  absl::Status Remove(absl::string_view path) override {
    absl::StatusOr<MemoryTree::Node*> node = Find(path, Access::kWrite);
    const std::string top = Absolute(path);
    // As xenstored: what is missing below something that exists counts as removed.
    if (absl::IsNotFound(node.status()) && nodes_->contains(Parent(top))) return absl::OkStatus();
    if (!node.ok()) return node.status();
    std::erase_if(*nodes_, [&](const auto& entry) { return IsBelow(entry.first, top); });
    changed.insert(top);
    removed.insert(top);
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<std::string>> List(absl::string_view path) override {
    absl::StatusOr<MemoryTree::Node*> node = Find(path, Access::kRead);
    if (!node.ok()) return node.status();
    std::vector<std::string> names;
    const std::string top = Absolute(path);
    for (const auto& [name, child] : *nodes_) {
      if (name.size() > top.size() && Parent(name) == top)
        names.push_back(name.substr(top.size() + 1));
    }
    return names;
  }
  absl::StatusOr<std::vector<Permission>> GetPermissions(absl::string_view path) override {
    absl::StatusOr<MemoryTree::Node*> node = Find(path, Access::kRead);
    if (!node.ok()) return node.status();
    return (*node)->permissions;
  }
  absl::Status SetPermissions(absl::string_view path,
                              const std::vector<Permission>& permissions) override {
    absl::StatusOr<MemoryTree::Node*> node = Find(path, Access::kWrite);
    if (!node.ok()) return node.status();
    (*node)->permissions = permissions;
    changed.insert(Absolute(path));
    return absl::OkStatus();
  }

  std::string Absolute(absl::string_view path) const {
    if (absl::StartsWith(path, "/") || absl::StartsWith(path, "@")) return std::string(path);
    return absl::StrCat("/local/domain/", domain_, "/", path);
  }

  std::set<std::string> changed, removed;

 private:
  bool May(const MemoryTree::Node& node, Access wanted) const {
    if (domain_ == 0 || node.permissions[0].domain == domain_) return true;
    for (size_t i = 1; i < node.permissions.size(); ++i) {
      if (node.permissions[i].domain == domain_) return Allows(node.permissions[i].access, wanted);
    }
    return Allows(node.permissions[0].access, wanted);
  }

  absl::StatusOr<MemoryTree::Node*> Find(absl::string_view path, Access wanted) {
    ++tree_->operations_;
    if (tree_->lost_) return absl::UnavailableError("the connection is lost");
    auto it = nodes_->find(Absolute(path));
    if (it == nodes_->end()) return absl::NotFoundError(absl::StrCat(path, ": no such node"));
    if (!May(it->second, wanted)) {
      return absl::PermissionDeniedError(absl::StrCat(path, ": permission denied"));
    }
    return &it->second;
  }

  absl::Status Put(absl::string_view path, std::string value) {
    const std::string absolute = Absolute(path);
    absl::StatusOr<MemoryTree::Node*> node = Find(path, Access::kWrite);
    if (absl::IsNotFound(node.status())) {
      std::vector<std::string> missing;
      std::string top = absolute;
      for (; !top.empty() && !nodes_->contains(top); top = Parent(top)) missing.push_back(top);
      const MemoryTree::Node& ancestor = nodes_->at(top);
      if (!May(ancestor, Access::kWrite)) {
        return absl::PermissionDeniedError(absl::StrCat(path, ": permission denied"));
      }
      std::vector<Permission> permissions = ancestor.permissions;
      if (domain_ != 0) permissions[0].domain = domain_;
      for (const std::string& name : missing) (*nodes_)[name].permissions = permissions;
    } else if (!node.ok()) {
      return node.status();
    }
    (*nodes_)[absolute].value = std::move(value);
    changed.insert(absolute);
    return absl::OkStatus();
  }

  MemoryTree* tree_;
  MemoryTree::Nodes* nodes_;
  uint16_t domain_;
};

MemoryTree::MemoryTree() {
  nodes_[""].permissions = {{0, Access::kRead}};
  nodes_["/local"].permissions = nodes_["/local/domain"].permissions = {{0, Access::kNone}};
  CreateDomain(0, "Domain-0");
}

std::unique_ptr<MemoryStore> MemoryTree::Connect(uint16_t domain) {
  return std::make_unique<MemoryStore>(this, domain);
}

void MemoryTree::CreateDomain(uint16_t domain, const std::string& name) {
  const std::string path = absl::StrCat("/local/domain/", domain);
  const std::vector<Permission> readable = {{0, Access::kNone}, {domain, Access::kRead}};
  const std::vector<Permission> own = {{domain, Access::kNone}};
  nodes_[path] = {"", readable};
  nodes_[path + "/name"] = {name, readable};
  nodes_[path + "/domid"] = {absl::StrCat(domain), readable};
  nodes_[path + "/device"] = {"", readable};
  nodes_[path + "/error"] = {"", own};
  nodes_[path + "/backend"] = {"", own};
  nodes_.try_emplace("/libxl", Node{"", {{0, Access::kNone}}});
  nodes_[absl::StrCat("/libxl/", domain)] = {"", {{0, Access::kNone}}};
  introduced_.insert(domain);
  Fire("@introduceDomain");
}

void MemoryTree::DestroyDomain(uint16_t domain) {
  Erase(absl::StrCat("/local/domain/", domain));
  Erase(absl::StrCat("/libxl/", domain));
  introduced_.erase(domain);
  Fire("@releaseDomain");
}

std::string MemoryTree::Value(const std::string& path) const {
  auto it = nodes_.find(path);
  return it == nodes_.end() ? "(none)" : it->second.value;
}

void MemoryTree::Set(const std::string& path, const std::string& value) {
  MemoryAccess access(this, &nodes_, 0);
  const absl::Status fault = std::exchange(write_fault_, absl::OkStatus());
  access.Write(path, value).IgnoreError();
  write_fault_ = fault;
  Changed(access.changed, access.removed);
}

void MemoryTree::Erase(const std::string& path) {
  MemoryAccess access(this, &nodes_, 0);
  access.Remove(path).IgnoreError();
  Changed(access.changed, access.removed);
}

size_t MemoryTree::watch_count() const {
  size_t count = 0;
  for (const MemoryStore* store : connections_) count += store->watches_.size();
  return count;
}

void MemoryTree::Changed(const std::set<std::string>& paths, const std::set<std::string>& removed) {
  if (!paths.empty()) ++generation_;
  for (MemoryStore* store : connections_) {
    for (const MemoryStore::Watched& watch : store->watches_) {
      for (const std::string& path : paths) {
        if (IsBelow(path, watch.path)) store->Deliver(watch, path);
      }
      // A removal is seen by those who watched something below.
      for (const std::string& path : removed) {
        if (path != watch.path && IsBelow(watch.path, path)) store->Deliver(watch, watch.path);
      }
    }
  }
}

void MemoryTree::Fire(const std::string& special) { Changed({special}, {}); }

MemoryStore::MemoryStore(MemoryTree* tree, uint16_t domain)
    : tree_(tree), domain_(domain), event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  tree_->connections_.insert(this);
}

MemoryStore::~MemoryStore() {
  tree_->connections_.erase(this);
  close(event_fd_);
}

std::string MemoryStore::Absolute(absl::string_view path) const {
  return MemoryAccess(tree_, &tree_->nodes_, domain_).Absolute(path);
}

void MemoryStore::Deliver(const Watched& watch, const std::string& path) {
  events_.push_back({watch.given + path.substr(watch.path.size()), watch.token});
  eventfd_write(event_fd_, 1);
}

absl::StatusOr<std::string> MemoryStore::Read(absl::string_view path) {
  return MemoryAccess(tree_, &tree_->nodes_, domain_).Read(path);
}
absl::StatusOr<std::vector<std::string>> MemoryStore::List(absl::string_view path) {
  return MemoryAccess(tree_, &tree_->nodes_, domain_).List(path);
}
absl::StatusOr<std::vector<Permission>> MemoryStore::GetPermissions(absl::string_view path) {
  return MemoryAccess(tree_, &tree_->nodes_, domain_).GetPermissions(path);
}
absl::Status MemoryStore::Write(absl::string_view path, absl::string_view value) {
  MemoryAccess access(tree_, &tree_->nodes_, domain_);
  absl::Status status = access.Write(path, value);
  tree_->Changed(access.changed, access.removed);
  return status;
}
absl::Status MemoryStore::MakeDirectory(absl::string_view path) {
  MemoryAccess access(tree_, &tree_->nodes_, domain_);
  absl::Status status = access.MakeDirectory(path);
  tree_->Changed(access.changed, access.removed);
  return status;
}
absl::Status MemoryStore::Remove(absl::string_view path) {
  MemoryAccess access(tree_, &tree_->nodes_, domain_);
  absl::Status status = access.Remove(path);
  tree_->Changed(access.changed, access.removed);
  return status;
}
absl::Status MemoryStore::SetPermissions(absl::string_view path,
                                         const std::vector<Permission>& permissions) {
  MemoryAccess access(tree_, &tree_->nodes_, domain_);
  absl::Status status = access.SetPermissions(path, permissions);
  tree_->Changed(access.changed, access.removed);
  return status;
}

absl::Status MemoryStore::Transaction(const std::function<absl::Status(NodeAccess&)>& body) {
  for (int attempt = 0; attempt < kTransactionAttempts; ++attempt) {
    MemoryTree::Nodes copy = tree_->nodes_;
    const uint64_t generation = tree_->generation_;
    MemoryAccess access(tree_, &copy, domain_);
    if (absl::Status status = body(access); !status.ok()) return status;
    if (tree_->failing_commits_ > 0) {
      --tree_->failing_commits_;
      continue;
    }
    if (generation != tree_->generation_) continue;
    tree_->nodes_ = std::move(copy);
    tree_->Changed(access.changed, access.removed);
    return absl::OkStatus();
  }
  return absl::AbortedError("a transaction met changes by others every time");
}

absl::Status MemoryStore::Watch(absl::string_view path, absl::string_view token) {
  if (tree_->lost_) return absl::UnavailableError("the connection is lost");
  if (watch_quota_reached) return absl::ResourceExhaustedError("watch: no space left");
  if (absl::StartsWith(path, "@") && domain_ != 0) return absl::PermissionDeniedError("watch");
  watches_.push_back({Absolute(path), std::string(token), std::string(path)});
  Deliver(watches_.back(), watches_.back().path);
  return absl::OkStatus();
}

absl::Status MemoryStore::Unwatch(absl::string_view path, absl::string_view token) {
  if (before_unwatch) before_unwatch();
  if (std::erase_if(watches_, [&](const Watched& watch) {
        return watch.given == path && watch.token == token;
      }) == 0) {
    return absl::NotFoundError("no such watch");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<WatchEvent>> MemoryStore::TakeWatchEvents(size_t max) {
  if (before_events) before_events();
  if (tree_->lost_) return absl::UnavailableError("the connection is lost");
  std::vector<WatchEvent> taken;
  size_t used = 0;
  for (; used < events_.size() && taken.size() < max; ++used) {
    const WatchEvent& event = events_[used];
    if (std::none_of(taken.begin(), taken.end(), [&](const WatchEvent& other) {
          return other.path == event.path && other.token == event.token;
        })) {
      taken.push_back(event);
    }
  }
  events_.erase(events_.begin(), events_.begin() + static_cast<std::ptrdiff_t>(used));
  eventfd_t ignored;
  if (events_.empty()) eventfd_read(event_fd_, &ignored);
  return taken;
}

absl::StatusOr<bool> MemoryStore::IsDomainIntroduced(uint16_t domain) {
  if (tree_->lost_) return absl::UnavailableError("the connection is lost");
  if (domain_ != 0) return absl::PermissionDeniedError("only a control domain may ask");
  return tree_->introduced_.contains(domain);
}

}  // namespace vmsg::xenstore
