// SPDX-License-Identifier: Apache-2.0
// One node as it is stored, and what one transaction has seen and changed.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "tools/xen-emu/store/tree/permissions.h"

namespace vmsg::emu::store {

struct Node {
  uint64_t generation = 0;  // of its last change: unique among all nodes
  Permissions permissions;
  std::string value;
  std::string children;  // names, each followed by a NUL, in the order of their creation

  // What the quota on a node's size counts.
  size_t QuotaBytes() const { return 24 + 8 * permissions.size() + value.size() + children.size(); }
};
// Never changed once stored: a change replaces it, so transactions can share it.
using NodeRef = std::shared_ptr<const Node>;

// A node joins a transaction when it is first touched, in the state it then has, missing included.
// The transaction can commit while every node it touched still is what it was.
class Transaction {
 public:
  struct Touched {
    std::string path;
    NodeRef original;  // nullptr: was missing
    NodeRef current;   // nullptr: is missing, for this transaction
    bool modified = false;
    bool fires = false;  // a watch event is due when it commits
    bool exact = false;  // for watches on this very node only
  };

  Touched* Find(const std::string& path) {
    auto it = by_path_.find(path);
    return it == by_path_.end() ? nullptr : it->second;
  }
  Touched& Add(const std::string& path, NodeRef node) {
    Touched& touched = touched_.emplace_back(Touched{.path = path, .original = node});
    touched.current = std::move(node);
    by_path_.emplace(touched.path, &touched);
    return touched;
  }
  // In the order in which they were touched.
  const std::deque<Touched>& touched() const { return touched_; }

  bool created_node = false;
  bool failed = false;                      // can only be aborted
  std::map<uint32_t, int64_t> owned_nodes;  // by owner: nodes gained or lost

 private:
  std::deque<Touched> touched_;
  std::unordered_map<std::string_view, Touched*> by_path_;
};

}  // namespace vmsg::emu::store
