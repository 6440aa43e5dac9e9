// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/store/tree/domains.h"

#include <utility>

namespace vmsg::emu::store {
namespace {

constexpr uint32_t kFirstReservedDomain = 0x7FF0;

}  // namespace

DomainTable::DomainTable(std::function<bool(uint16_t)> exists) : exists_(std::move(exists)) {
  FindOrAdd(0).introduced = true;
}

Domain* DomainTable::Find(uint32_t id) {
  auto it = domains_.find(id);
  return it == domains_.end() ? nullptr : &it->second;
}

const Domain* DomainTable::Find(uint32_t id) const {
  auto it = domains_.find(id);
  return it == domains_.end() ? nullptr : &it->second;
}

Domain* DomainTable::FindExisting(uint32_t id) {
  if (Domain* domain = Find(id)) return domain;
  if (id >= kFirstReservedDomain) return nullptr;
  if (exists_ && !exists_(static_cast<uint16_t>(id))) return nullptr;
  return &FindOrAdd(id);
}

Domain& DomainTable::FindOrAdd(uint32_t id) {
  auto [it, added] = domains_.try_emplace(id);
  if (added) it->second.generation = generation_;
  return it->second;
}

void DomainTable::Erase(uint32_t id) {
  domains_.erase(id);
  for (auto& [other, domain] : domains_) {
    if (domain.target == id) domain.target.reset();
  }
}

bool DomainTable::IsOlderThan(uint32_t id, uint64_t node_generation) const {
  const Domain* domain = Find(id);
  return domain != nullptr && domain->generation <= node_generation;
}

}  // namespace vmsg::emu::store
