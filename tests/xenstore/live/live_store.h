// SPDX-License-Identifier: Apache-2.0
// Connections of Dom0 and a guest to a running store server, over libxenstore; domain 3 may serve
// as a driver domain.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/emulated-store/running_store.h"
#include "xenstore/store.h"

namespace vmsg::xenstore {

class LiveStore : public testing::Test {
 protected:
  void SetUp() override {
    for (const uint16_t domain : {3, 5}) {
      server_.Run([&](emu::store::StoreServer& store) {
        EXPECT_TRUE(store.IntroduceDomain(domain).ok());
        const std::string home = absl::StrCat("/local/domain/", domain);
        const std::vector<emu::store::NodePermission> readable = {{'n', 0}, {'r', domain}};
        const std::vector<emu::store::NodePermission> own = {{'n', domain}};
        EXPECT_TRUE(store.Write(home, "").ok());
        EXPECT_TRUE(store.SetPermissions(home, readable).ok());
        EXPECT_TRUE(store.Write(home + "/domid", absl::StrCat(domain)).ok());
        EXPECT_TRUE(store.Write(home + "/device", "").ok());
        for (const char* node : {"/data", "/backend", "/error"}) {
          EXPECT_TRUE(store.Write(home + node, "").ok());
          EXPECT_TRUE(store.SetPermissions(home + node, own).ok());
        }
      });
    }
    dom0_ = Open(0);
    guest_ = Open(5);
  }
  std::unique_ptr<Store> Open(uint16_t domain) {
    absl::StatusOr<std::unique_ptr<Store>> store = OpenStore(server_.Socket(domain));
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }
  // The next events, waited for.
  static std::vector<std::string> Events(Store& store) {
    while (true) {
      absl::StatusOr<std::vector<WatchEvent>> events = store.TakeWatchEvents();
      EXPECT_TRUE(events.ok()) << events.status();
      if (!events.ok() || !events->empty()) {
        std::vector<std::string> lines;
        for (const WatchEvent& event : *events) {
          lines.push_back(absl::StrCat(event.token, " ", event.path));
        }
        return lines;
      }
      pollfd ready{.fd = store.fd(), .events = POLLIN, .revents = 0};
      if (poll(&ready, 1, 60'000) != 1) {
        ADD_FAILURE() << "no event came";
        return {};
      }
    }
  }

  emu::store::RunningStore server_;
  std::unique_ptr<Store> dom0_, guest_;
};

}  // namespace vmsg::xenstore
