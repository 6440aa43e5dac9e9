// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/store/tree/node_store.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/xen-emu/store/tree/paths.h"

namespace vmsg::emu::store {
namespace {

// Errors that say nothing about a node and so are never hidden.
bool IsAboutQuota(int error) { return error == ENOSPC || error == ENOMEM; }

void AppendChild(Node& parent, absl::string_view name) {
  parent.children.append(name.data(), name.size());
  parent.children.push_back('\0');
}

bool RemoveChild(Node& parent, absl::string_view name) {
  size_t at = 0;
  while (at < parent.children.size()) {
    size_t end = parent.children.find('\0', at);
    if (absl::string_view(parent.children.data() + at, end - at) == name) {
      parent.children.erase(at, end - at + 1);
      return true;
    }
    at = end + 1;
  }
  return false;
}

std::vector<std::string> ChildNames(const Node& node) {
  std::vector<std::string> names;
  size_t at = 0;
  while (at < node.children.size()) {
    names.emplace_back(node.children.c_str() + at);
    at += names.back().size() + 1;
  }
  return names;
}

}  // namespace

NodeStore::NodeStore(DomainTable& domains, const Quotas& quotas,
                     std::function<void(const Change&)> changed)
    : domains_(domains), quotas_(quotas), changed_(std::move(changed)) {
  const Permissions dom0 = {{.domain = 0, .rights = kNoRights}};
  auto add = [&](const char* path, absl::string_view child) {
    auto node =
        std::make_shared<Node>(Node{.generation = domains_.NextGeneration(), .permissions = dom0});
    if (!child.empty()) AppendChild(*node, child);
    nodes_.emplace(path, std::move(node));
    ++domains_.FindOrAdd(0).nodes;
  };
  add("/", "tool");
  add("/tool", "xenstored");
  add("/tool/xenstored", "");
}

void NodeStore::MarkStale(Permissions& permissions, uint64_t generation) const {
  for (size_t i = 1; i < permissions.size(); ++i) {
    if (!domains_.IsOlderThan(permissions[i].domain, generation)) permissions[i].stale = true;
  }
}

NodeRef NodeStore::Stored(const std::string& path) const {
  auto it = nodes_.find(path);
  if (it == nodes_.end()) return nullptr;
  const Node& node = *it->second;
  for (size_t i = 1; i < node.permissions.size(); ++i) {
    const PermissionEntry& entry = node.permissions[i];
    if (entry.stale || domains_.IsOlderThan(entry.domain, node.generation)) continue;
    auto copy = std::make_shared<Node>(node);
    MarkStale(copy->permissions, copy->generation);
    return copy;
  }
  return it->second;
}

NodeStore::Fetched NodeStore::Fetch(const Caller& caller, const std::string& path) {
  if (caller.transaction == nullptr) {
    NodeRef node = Stored(path);
    return {.node = node, .error = node ? 0 : ENOENT};
  }
  Transaction& transaction = *caller.transaction;
  Transaction::Touched* touched = transaction.Find(path);
  if (touched == nullptr) {
    if (!caller.requester.privileged && transaction.touched().size() >= quotas_.transaction_nodes) {
      transaction.failed = true;
      return {.error = ENOSPC};
    }
    touched = &transaction.Add(path, Stored(path));
  }
  return {.node = touched->current, .error = touched->current ? 0 : ENOENT};
}

int NodeStore::ErrorFromParents(const Caller& caller, const std::string& path, unsigned rights,
                                int error) {
  std::string parent = path;
  do {
    parent = ParentOf(parent);
    Fetched fetched = Fetch(caller, parent);
    if (fetched.node) {
      return (RightsOf(caller.requester, fetched.node->permissions) & rights) ? error : EACCES;
    }
    if (IsAboutQuota(fetched.error)) return fetched.error;
  } while (parent != "/");
  return EACCES;
}

int NodeStore::Get(const Caller& caller, const std::string& path, unsigned rights, NodeRef* node) {
  if (!IsValidPath(path)) return EINVAL;
  Fetched fetched = Fetch(caller, path);
  if (fetched.node && (RightsOf(caller.requester, fetched.node->permissions) & rights) == rights) {
    *node = std::move(fetched.node);
    return 0;
  }
  int error = fetched.node ? EACCES : fetched.error;
  return IsAboutQuota(error) ? error : ErrorFromParents(caller, path, rights, error);
}

int NodeStore::Read(const Caller& caller, const std::string& path, NodeRef* node) {
  return Get(caller, path, kRead, node);
}

void NodeStore::CountOwned(const Caller& caller, uint32_t domain, int64_t change) {
  if (caller.transaction != nullptr) {
    caller.transaction->owned_nodes[domain] += change;
  } else if (Domain* owner = domains_.FindExisting(domain)) {
    owner->nodes += change;
  }
}

int NodeStore::Put(const Caller& caller, const std::string& path, Node node, bool check_size) {
  node.generation = domains_.NextGeneration();
  MarkStale(node.permissions, node.generation);
  if (check_size && !caller.requester.privileged && node.QuotaBytes() >= quotas_.node_bytes) {
    // Half of an operation may be done by now, so the transaction is not to be saved.
    if (caller.transaction != nullptr) caller.transaction->failed = true;
    return ENOSPC;
  }
  auto stored = std::make_shared<const Node>(std::move(node));
  if (caller.transaction == nullptr) {
    nodes_.insert_or_assign(path, std::move(stored));
    return 0;
  }
  Transaction::Touched* touched = caller.transaction->Find(path);
  if (touched == nullptr) touched = &caller.transaction->Add(path, Stored(path));
  touched->current = std::move(stored);
  touched->modified = true;
  return 0;
}

void NodeStore::Erase(const Caller& caller, const std::string& path) {
  domains_.NextGeneration();
  if (caller.transaction == nullptr) {
    nodes_.erase(path);
  } else if (Transaction::Touched* touched = caller.transaction->Find(path)) {
    touched->current = nullptr;
    touched->modified = true;
  }
}

void NodeStore::Report(const Caller& caller, const std::string& path, bool exact,
                       const NodeRef& node, const Permissions* before) {
  if (caller.transaction != nullptr) {
    Transaction::Touched* touched = caller.transaction->Find(path);
    touched->exact = touched->fires ? touched->exact && exact : exact;
    touched->fires = true;
    return;
  }
  NodeRef parent = node ? Stored(ParentOf(path)) : nullptr;
  changed_({.path = path,
            .exact = exact,
            .seen_by = {before, node ? &node->permissions : nullptr,
                        parent ? &parent->permissions : nullptr}});
}

int NodeStore::Create(const Caller& caller, const std::string& path, absl::string_view value) {
  // From the node up to, not including, the first that exists.
  std::vector<std::string> missing = {path};
  NodeRef ancestor;
  std::string ancestor_path;
  while (ancestor == nullptr) {
    ancestor_path = ParentOf(missing.back());
    Fetched fetched = Fetch(caller, ancestor_path);
    if (!fetched.node) {
      if (fetched.error != ENOENT || ancestor_path == "/") return fetched.error;
      missing.push_back(ancestor_path);
    }
    ancestor = std::move(fetched.node);
  }
  const bool privileged = caller.requester.privileged;
  Permissions inherited = ancestor->permissions;
  if (!privileged) inherited[0].domain = caller.requester.domain;
  if (caller.transaction != nullptr) caller.transaction->created_node = true;

  int error = 0;
  size_t done = 0;
  for (; done < missing.size() && error == 0; ++done) {
    Domain* creator = domains_.Find(caller.requester.domain);
    if (!privileged && creator != nullptr &&
        creator->nodes >= static_cast<int64_t>(quotas_.nodes)) {
      error = ENOSPC;
      break;
    }
    Node node{.permissions = inherited};
    if (done == 0) {
      node.value = std::string(value);
    } else {
      AppendChild(node, BaseName(missing[done - 1]));
    }
    error = Put(caller, missing[done], std::move(node), true);
    if (error != 0) break;
    CountOwned(caller, inherited[0].domain, 1);
  }
  if (error == 0) {
    Node parent = *ancestor;
    AppendChild(parent, BaseName(missing.back()));
    error = Put(caller, ancestor_path, std::move(parent), true);
  }
  if (error == 0) return 0;
  for (size_t i = 0; i < done; ++i) {
    Erase(caller, missing[i]);
    CountOwned(caller, inherited[0].domain, -1);
    if (caller.transaction != nullptr) caller.transaction->failed = true;
  }
  return error;
}

int NodeStore::Write(const Caller& caller, const std::string& path, absl::string_view value) {
  NodeRef node;
  int error = Get(caller, path, kWrite, &node);
  if (error == ENOENT) {
    error = Create(caller, path, value);
  } else if (error == 0) {
    Node changed = *node;
    changed.value = std::string(value);
    error = Put(caller, path, std::move(changed), true);
  }
  if (error != 0) return error;
  Report(caller, path, false, Fetch(caller, path).node, nullptr);
  return 0;
}

int NodeStore::MakeDirectory(const Caller& caller, const std::string& path) {
  NodeRef node;
  int error = Get(caller, path, kWrite, &node);
  if (error != ENOENT) return error;
  error = Create(caller, path, "");
  if (error != 0) return error;
  Report(caller, path, false, Fetch(caller, path).node, nullptr);
  return 0;
}

int NodeStore::Remove(const Caller& caller, const std::string& path) {
  NodeRef node;
  int error = Get(caller, path, kWrite, &node);
  if (error == ENOENT) {
    Fetched parent = Fetch(caller, ParentOf(path));
    return parent.error;
  }
  if (error != 0) return error;
  if (path == "/") return EINVAL;
  return RemoveTree(caller, path);
}

int NodeStore::RemoveTree(const Caller& caller, const std::string& path) {
  const std::string parent_path = ParentOf(path);
  Fetched parent = Fetch(caller, parent_path);
  if (!parent.node) return IsAboutQuota(parent.error) ? parent.error : EINVAL;
  Fetched node = Fetch(caller, path);
  if (!node.node) return EIO;
  if (int error = RemoveBelow(caller, path, path, node.node); error != 0) return error;
  Node changed = *parent.node;
  // Missing when a transaction saw the parent before others created the child: it cannot commit.
  if (!RemoveChild(changed, BaseName(path))) return EIO;
  return Put(caller, parent_path, std::move(changed), false) == 0 ? 0 : EIO;
}

// Children first, as their watchers are told first. Depth is bounded by the length of a path.
int NodeStore::RemoveBelow(const Caller& caller, const std::string& path, const std::string& top,
                           const NodeRef& node) {
  Node remaining = *node;
  for (const std::string& name : ChildNames(*node)) {
    std::string child_path = ChildPath(path, name);
    Fetched child = Fetch(caller, child_path);
    const int error = child.node ? RemoveBelow(caller, child_path, top, child.node) : EIO;
    if (error != 0) {
      // Only in a transaction that cannot commit any more; it sees what is left.
      Put(caller, path, std::move(remaining), false);
      return error;
    }
    RemoveChild(remaining, name);
  }
  Erase(caller, path);
  Report(caller, path, path != top, node, nullptr);
  CountOwned(caller, node->permissions[0].domain, -1);
  return 0;
}

int NodeStore::SetPermissions(const Caller& caller, const std::string& path,
                              Permissions permissions) {
  const bool privileged = caller.requester.privileged;
  for (size_t i = 0; i < permissions.size(); ++i) {
    if (domains_.FindExisting(permissions[i].domain) == nullptr) permissions[i].stale = true;
  }
  if (permissions[0].stale) return ENOENT;
  NodeRef node;
  int error = Get(caller, path, kWrite | kOwner, &node);
  if (error != 0) return error;
  if (!privileged && permissions[0].domain != node->permissions[0].domain) return EPERM;

  Node changed = *node;
  changed.permissions = std::move(permissions);
  const uint32_t owner = changed.permissions[0].domain;
  error = Put(caller, path, std::move(changed), true);
  if (error != 0) return error;
  CountOwned(caller, node->permissions[0].domain, -1);
  CountOwned(caller, owner, 1);
  Report(caller, path, false, Fetch(caller, path).node, &node->permissions);
  return 0;
}

int NodeStore::Commit(const Requester& requester, Transaction& transaction) {
  if (transaction.failed) return ENOMEM;
  for (const auto& [id, change] : transaction.owned_nodes) {
    const Domain* owner = domains_.FindExisting(id);
    if (owner == nullptr) return ENOMEM;
    if (transaction.created_node && !requester.privileged && id != 0 &&
        owner->nodes + change >= static_cast<int64_t>(quotas_.nodes)) {
      return ENOSPC;
    }
  }
  for (const Transaction::Touched& touched : transaction.touched()) {
    auto now = nodes_.find(touched.path);
    const bool missing = now == nodes_.end();
    if (touched.original ? missing || now->second->generation != touched.original->generation
                         : !missing) {
      return EAGAIN;
    }
  }
  const Caller caller = {.requester = requester};
  for (const Transaction::Touched& touched : transaction.touched()) {
    if (!touched.modified) continue;
    if (touched.current) {
      auto node = std::make_shared<Node>(*touched.current);
      node->generation = domains_.NextGeneration();
      nodes_.insert_or_assign(touched.path, std::move(node));
    } else {
      nodes_.erase(touched.path);
    }
    if (touched.fires) {
      Report(caller, touched.path, touched.exact, Stored(touched.path),
             touched.original ? &touched.original->permissions : nullptr);
    }
  }
  for (const auto& [id, change] : transaction.owned_nodes) CountOwned(caller, id, change);
  return 0;
}

void NodeStore::RemoveOwnedBy(uint32_t domain) { RemoveOwnedBelow(domain, "/"); }

void NodeStore::RemoveOwnedBelow(uint32_t domain, const std::string& path) {
  const Domain* owner = domains_.Find(domain);
  if (owner == nullptr || owner->nodes <= 0) return;
  NodeRef node = Stored(path);
  if (!node) return;
  if (path != "/" && node->permissions[0].domain == domain) {
    RemoveTree({}, path);
    return;
  }
  for (const std::string& name : ChildNames(*node)) {
    RemoveOwnedBelow(domain, ChildPath(path, name));
  }
}

}  // namespace vmsg::emu::store
