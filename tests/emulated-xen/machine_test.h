// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/emulated-xen/emulated_xen.h"

namespace vmsg::test {

// An emulated machine with one guest.
class MachineTest : public ::testing::Test {
 protected:
  // Options of xen-emu.
  void Boot(const std::vector<std::string>& options = {}, int memory_mib = 256) {
    auto xen = EmulatedXen::Start(options);
    ASSERT_TRUE(xen.ok()) << xen.status();
    xen_ = *std::move(xen);
    auto guest = xen_->CreateDomain("g1", memory_mib);
    ASSERT_TRUE(guest.ok()) << guest.status();
    guest_ = *guest;
    dom0_platform_ = Platform(0);
    guest_platform_ = Platform(guest_);
  }

  std::unique_ptr<grants::Platform> Platform(grants::DomainId domain) {
    auto platform = xen_->OpenPlatform(domain);
    EXPECT_TRUE(platform.ok()) << platform.status();
    return platform.ok() ? *std::move(platform) : nullptr;
  }
  std::unique_ptr<grants::GrantMapper> Mapper() { return *dom0_platform_->OpenGrantMapper(); }
  std::unique_ptr<grants::GrantSharer> Sharer() { return *guest_platform_->OpenGrantSharer(); }

  std::unique_ptr<EmulatedXen> xen_;
  grants::DomainId guest_ = 0;
  std::unique_ptr<grants::Platform> dom0_platform_;
  std::unique_ptr<grants::Platform> guest_platform_;
};

}  // namespace vmsg::test
