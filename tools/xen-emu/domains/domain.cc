// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/domains/domain.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace vmsg::emu {
namespace {

constexpr size_t kMaxNameSize = 64;

bool IsName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxNameSize || absl::ascii_isdigit(name[0])) return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<DomainList>> DomainList::Create(const DomainLimits& limits) {
  auto list = std::unique_ptr<DomainList>(new DomainList(limits));
  if (auto dom0 = list->Make(0, "Domain-0", kDefaultMemoryMiB); !dom0.ok()) return dom0.status();
  return list;
}

absl::StatusOr<std::shared_ptr<Domain>> DomainList::Add(absl::string_view name,
                                                        uint32_t memory_mib) {
  if (memory_mib == 0 || memory_mib > kMaxMemoryMiB) {
    return absl::InvalidArgumentError(
        absl::StrCat("a domain has 1 to ", kMaxMemoryMiB, " MiB of memory, not ", memory_mib));
  }
  ForgetUnmapped();
  if (live_.size() + zombies_.size() >= grants::kFirstReservedDomain - 1) {
    return absl::ResourceExhaustedError("every domid is in use");
  }
  const auto taken = [this](grants::DomainId id) {
    return live_.contains(id) || std::any_of(zombies_.begin(), zombies_.end(),
                                             [id](const auto& zombie) { return zombie->id == id; });
  };
  const auto after = [](grants::DomainId id) {
    return static_cast<grants::DomainId>(id + 1 < grants::kFirstReservedDomain ? id + 1 : 1);
  };
  while (taken(next_)) next_ = after(next_);
  const std::string chosen =
      name.empty() ? absl::StrCat("domain", next_) : std::string(name.data(), name.size());
  if (!IsName(chosen)) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a domain's name: it starts with a letter and has at most ", kMaxNameSize,
                     " letters, digits, '-', '_' and '.'"));
  }
  for (const auto& [id, domain] : live_) {
    if (domain->name == chosen) {
      return absl::AlreadyExistsError(absl::StrCat("domain ", id, " is called ", chosen));
    }
  }
  auto domain = Make(next_, chosen, memory_mib);
  if (domain.ok()) next_ = after(next_);
  return domain;
}

absl::StatusOr<std::shared_ptr<Domain>> DomainList::Make(grants::DomainId id, std::string name,
                                                         uint32_t memory_mib) {
  auto memory = DomainMemory::Create(next_serial_, memory_mib * kPagesPerMiB);
  if (!memory.ok()) return memory.status();
  ++next_serial_;
  auto domain =
      std::make_shared<Domain>(id, std::move(name), *std::move(memory), limits_.max_grant_frames);
  live_.emplace(id, domain);
  return domain;
}

std::shared_ptr<Domain> DomainList::Find(grants::DomainId id) const {
  const auto found = live_.find(id);
  return found == live_.end() ? nullptr : found->second;
}

absl::StatusOr<std::shared_ptr<Domain>> DomainList::FindByText(
    absl::string_view domid_or_name) const {
  uint32_t number = 0;
  const bool is_number = absl::SimpleAtoi(domid_or_name, &number);
  for (const auto& [id, domain] : live_) {
    if (is_number ? id == number : domain->name == domid_or_name) return domain;
  }
  return absl::NotFoundError(absl::StrCat("there is no domain ", domid_or_name));
}

std::shared_ptr<Domain> DomainList::FindWithZombies(grants::DomainId id) {
  if (std::shared_ptr<Domain> live = Find(id); live != nullptr) return live;
  ForgetUnmapped();
  const auto zombie = std::find_if(zombies_.begin(), zombies_.end(),
                                   [id](const auto& dead) { return dead->id == id; });
  return zombie == zombies_.end() ? nullptr : *zombie;
}

void DomainList::Kill(const std::shared_ptr<Domain>& domain) {
  domain->state = Domain::State::kDying;
  live_.erase(domain->id);
  if (domain->grants.pins() > 0) zombies_.push_back(domain);
}

void DomainList::ForgetUnmapped() {
  std::erase_if(zombies_, [](const auto& zombie) { return zombie->grants.pins() == 0; });
}

std::vector<std::shared_ptr<Domain>> DomainList::All() {
  ForgetUnmapped();
  std::vector<std::shared_ptr<Domain>> all;
  for (const auto& [id, domain] : live_) all.push_back(domain);
  all.insert(all.end(), zombies_.begin(), zombies_.end());
  return all;
}

}  // namespace vmsg::emu
