// SPDX-License-Identifier: Apache-2.0
// Domains that are introduced in a store in memory, and a directory of configs for them.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/xenstore/memory_store.h"
#include "xenstore/introduction/introductions.h"

namespace vmsg::xenstore {

class IntroductionsRig : public testing::Test, public IntroductionListener {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/vmsg-configs-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    std::filesystem::create_directory(directory_ + "/auto");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Config(const std::string& file, const std::string& name, const std::string& entries) {
    return Write(
        file, absl::StrCat("name = \"", name, "\"\nmemory = 64\nvirtio_msg = [ ", entries, " ]\n"));
  }
  std::string Write(const std::string& file, const std::string& text) {
    const std::string path = absl::StrCat(directory_, "/", file);
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  void Start() {
    auto introductions =
        Introductions::Start(store_.get(), this, ConfigCatalog({directory_, directory_ + "/auto"}),
                             0, [this](const std::vector<AttachItem>&) { return check_; });
    ASSERT_TRUE(introductions.ok()) << introductions.status();
    introductions_ = *std::move(introductions);
    Settle();
  }
  // What was reported until nothing is left to do.
  std::vector<std::string> Settle() {
    while (true) {
      absl::StatusOr<bool> more = introductions_->Process();
      EXPECT_TRUE(more.ok()) << more.status();
      if (!more.ok() || !*more) return std::exchange(lines_, {});
    }
  }
  std::string Type(uint16_t domain, int number, int backend = 0, int bus = 0) {
    return tree_.Value(absl::StrCat("/local/domain/", backend, "/backend/virtio-msg/", domain, "/",
                                    bus, "/device/", number, "/type"));
  }
  std::string Mark(uint16_t domain, const std::string& node) {
    return tree_.Value(absl::StrCat("/libxl/", domain, "/virtio-msg/", node));
  }

  void OnAttached(uint16_t domain, const std::string& name, const std::string& config,
                  size_t devices) override {
    lines_.push_back(absl::StrCat("attached ", domain, " ", name, " ",
                                  config.substr(directory_.size()), " ", devices));
  }
  void OnRefused(uint16_t domain, const std::string& name, const absl::Status& reason) override {
    lines_.push_back(absl::StrCat("refused ", domain, " ", name, ": ", reason.message()));
  }
  void OnNoConfig(uint16_t domain, const std::string& name,
                  const std::string& surroundings) override {
    nothing_.push_back(absl::StrCat(domain, " ", name, ": ", surroundings));
  }
  void OnWarning(uint16_t domain, const std::string& name, const std::string& text) override {
    lines_.push_back(absl::StrCat("warning ", domain, " ", name, ": ", text));
  }
  void OnComplaint(const std::string& text) override {
    lines_.push_back(absl::StrCat("complaint ", text));
  }

  std::string directory_;
  MemoryTree tree_;
  std::unique_ptr<MemoryStore> store_ = tree_.Connect(0);
  std::vector<std::string> lines_;
  std::vector<std::string> nothing_;
  absl::Status check_;
  std::unique_ptr<Introductions> introductions_;
};

}  // namespace vmsg::xenstore
