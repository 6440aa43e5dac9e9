// SPDX-License-Identifier: Apache-2.0
// vmsgctl's commands on a store in memory, and a model of vmsgd behind it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "tests/vmsgctl/model_service.h"
#include "tools/vmsgctl/commands.h"

namespace vmsg::ctl {

class VmsgctlRig : public testing::Test {
 protected:
  void SetUp() override {
    tree_.CreateDomain(5, "g1");
    StartService();
  }
  void StartService() {
    liveness_ = {.answer = Liveness::Answer::kLives, .pid = 12};
    service_ = std::make_unique<ModelService>(tree_);
    service_->Run();
    store_->before_events = [this] { service_->Run(); };
  }
  void StopService() {
    store_->before_events = nullptr;
    service_.reset();
    liveness_ = {.answer = Liveness::Answer::kNone};
  }

  int Run(std::vector<std::string> words) {
    out_.str("");
    err_.str("");
    absl::StatusOr<Arguments> arguments = ParseArguments(words);
    EXPECT_TRUE(arguments.ok()) << arguments.status();
    if (!arguments.ok()) return kExitUsage;
    if (patience_.has_value()) arguments->timeout = *patience_;
    const Console console{out_, err_};
    const auto ask = [this] { return liveness_; };
    switch (arguments->command) {
      case Command::kList:
        return List(*arguments, *store_, console, ask);
      case Command::kAttach:
        return Attach(*arguments, *store_, console, ask, check_);
      default:
        return Detach(*arguments, *store_, console, ask);
    }
  }
  std::string out() const { return out_.str(); }
  std::string err() const { return err_.str(); }
  std::string Device(const std::string& rest) {
    return "/local/domain/0/backend/virtio-msg/5/0/device/" + rest;
  }

  xenstore::MemoryTree tree_;
  std::unique_ptr<xenstore::MemoryStore> store_ = tree_.Connect(0);
  std::unique_ptr<ModelService> service_;
  std::ostringstream out_, err_;
  Check check_ = nullptr;
  std::optional<absl::Duration> patience_;  // as the default, not as --timeout
  Liveness liveness_;
};

inline constexpr char kBusPath[] = "/local/domain/0/backend/virtio-msg/5/0";
inline constexpr char kFrontPath[] = "/local/domain/5/device/virtio-msg/0";

}  // namespace vmsg::ctl
