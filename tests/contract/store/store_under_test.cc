// SPDX-License-Identifier: Apache-2.0
#include "tests/contract/store/store_under_test.h"

#include <poll.h>

#include "absl/strings/str_cat.h"

namespace vmsg::test {

void StoreContract::SetUp() {
  auto xen = GetParam().make();
  ASSERT_TRUE(xen.ok()) << xen.status();
  xen_ = *std::move(xen);
  store_ = Open();
  ASSERT_NE(store_, nullptr);
  store_->Remove(kBase).IgnoreError();
  ASSERT_TRUE(store_->MakeDirectory(kBase).ok());
}

void StoreContract::TearDown() {
  if (store_ == nullptr) return;
  EXPECT_TRUE(store_->Remove(kBase).ok());
}

std::unique_ptr<xenstore::Store> StoreContract::Open() {
  auto store = xen_->Open();
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

std::string StoreContract::Home() const { return absl::StrCat("/local/domain/", xen_->domain); }

std::vector<std::string> StoreContract::Events(xenstore::Store& store, size_t count) {
  constexpr int kLimitMilliseconds = 60'000;  // only a broken implementation makes this wait
  std::vector<std::string> lines;
  while (true) {
    auto events = store.TakeWatchEvents();
    if (!events.ok()) {
      ADD_FAILURE() << events.status();
      return lines;
    }
    for (const xenstore::WatchEvent& event : *events) {
      lines.push_back(absl::StrCat(event.token, " ", event.path));
    }
    if (lines.size() >= count) return lines;
    pollfd ready{.fd = store.fd(), .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, kLimitMilliseconds) != 1) {
      ADD_FAILURE() << "no event came";
      return lines;
    }
  }
}

}  // namespace vmsg::test
