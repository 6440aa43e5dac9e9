// SPDX-License-Identifier: Apache-2.0
// What the store knows about each domain, and the clock that orders domains and nodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>

namespace vmsg::emu::store {

struct Domain {
  uint64_t generation = 0;  // when the store heard of it: permissions older than that are stale
  bool introduced = false;
  bool shut_down = false;
  int64_t nodes = 0;  // owned by it
  size_t watches = 0;
  size_t transactions = 0;
  std::optional<uint32_t> target;
};

// Domain 0 is always there.
class DomainTable {
 public:
  // `exists` is asked about a domain that is not in the table yet; every one exists when not set.
  explicit DomainTable(std::function<bool(uint16_t)> exists);

  // nullptr: not in the table. Pointers stay valid until Erase of that domain.
  Domain* Find(uint32_t id);
  const Domain* Find(uint32_t id) const;
  // Adds it when it exists; nullptr when it does not.
  Domain* FindExisting(uint32_t id);
  Domain& FindOrAdd(uint32_t id);
  void Erase(uint32_t id);

  // Ticks with every change and every start of a transaction.
  uint64_t NextGeneration() { return ++generation_; }
  // Whether an entry for this domain in a node of this generation is meant for the domain that has
  // the id now.
  bool IsOlderThan(uint32_t id, uint64_t node_generation) const;

 private:
  std::function<bool(uint16_t)> exists_;
  uint64_t generation_ = 0;
  std::unordered_map<uint32_t, Domain> domains_;
};

}  // namespace vmsg::emu::store
