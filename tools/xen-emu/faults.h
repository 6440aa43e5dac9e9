// SPDX-License-Identifier: Apache-2.0
// What goes wrong because a test asked for it. `xen-emu fault --dir D <name> [args]`:
//
//   map-fail <domid> <entry> [times]   a request to map or copy that domain's grants fails at this
//                                      entry (the first is 0), as if it were refused; requests
//                                      without that entry are left alone
//   share-fail <domid> [times]         that domain's next requests to grant pages fail
//   bind-fail <domid> [times]          that domain's next BindInterdomain fail
//   lose-events <domid> <port> <n>     the next n events sent to that port are lost
//   store-hold / store-release         the store answers nobody until released
//   store-delay <ms>                   every turn of the store comes that much later; 0 ends it
//   store-lose <domid> <n>             the next n watch events to that domain are lost
//   list, clear
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "grants/xen_types.h"

namespace vmsg::emu {

struct Faults {
  enum class Kind { kMapFail, kShareFail, kBindFail };
  struct Rule {
    Kind kind;
    grants::DomainId domain;
    uint32_t entry;  // kMapFail
    uint32_t times;  // still to come
  };
  std::vector<Rule> rules;
  absl::Duration store_delay = absl::ZeroDuration();
  bool store_held = false;

  // Uses up one time of the first rule that applies; false when none does. `entries`: of the map
  // request; `entry`: where it is to fail.
  bool Strike(Kind kind, grants::DomainId domain, uint32_t entries, uint32_t* entry) {
    const auto rule = std::find_if(rules.begin(), rules.end(), [&](const Rule& candidate) {
      return candidate.kind == kind && candidate.domain == domain &&
             (kind != Kind::kMapFail || candidate.entry < entries);
    });
    if (rule == rules.end()) return false;
    *entry = rule->entry;
    if (--rule->times == 0) rules.erase(rule);
    return true;
  }
};

}  // namespace vmsg::emu
