// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/store/watch_list.h"

#include <algorithm>
#include <utility>

#include "absl/strings/strip.h"
#include "tools/xen-emu/store/tree/paths.h"

namespace vmsg::emu::store {
namespace {

auto Is(absl::string_view path, absl::string_view token) {
  return [=](const WatchList::Watch& watch) { return watch.path == path && watch.token == token; };
}

}  // namespace

absl::string_view WatchList::Watch::EventPath(absl::string_view changed) const {
  if (absl::ConsumePrefix(&changed, relative_to) && !relative_to.empty()) {
    absl::ConsumePrefix(&changed, "/");
  }
  return changed;
}

bool WatchList::Contains(absl::string_view path, absl::string_view token) const {
  return std::any_of(watches_.begin(), watches_.end(), Is(path, token));
}

const WatchList::Watch& WatchList::Add(Watch watch) {
  return watches_.emplace_back(std::move(watch));
}

bool WatchList::Remove(absl::string_view path, absl::string_view token) {
  auto it = std::find_if(watches_.begin(), watches_.end(), Is(path, token));
  if (it == watches_.end()) return false;
  watches_.erase(it);
  return true;
}

void WatchList::Match(absl::string_view changed, bool exact,
                      const std::function<void(const Watch&)>& event) const {
  for (const Watch& watch : watches_) {
    if (exact ? changed == watch.path : IsAtOrBelow(changed, watch.path)) event(watch);
  }
}

}  // namespace vmsg::emu::store
