// SPDX-License-Identifier: Apache-2.0
// The contract of grants/*.h, as bodies that run over any implementation: each is a TEST_P over
// this fixture, compiled into a program that instantiates the suites with its own XenUnderTest.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grants/platform.h"
#include "grants/xen_types.h"

namespace vmsg::test {

// Two domains of one machine: what maps and binds, and what grants and allocates.
class XenUnderTest {
 public:
  struct Side {
    grants::DomainId id;
    // The start of a command line that runs contract_peer.cc in this domain; its arguments follow.
    std::vector<std::string> peer_command;
    // null for a domain that this process is not in: PeerContract only.
    std::unique_ptr<grants::Platform> platform;
    // Makes the command kill the program, as SIGKILL would, and end.
    int kill_signal = SIGKILL;
  };
  virtual ~XenUnderTest() = default;

  Side backend;
  Side guest;

  // Ends the guest domain as the toolstack would. What was opened in it may not be used any more.
  virtual absl::Status DestroyGuest() = 0;
  // Mappings of the guest's pages that are left, by whomever.
  virtual absl::StatusOr<long> MappingsLeft() = 0;
};

struct XenFactory {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<XenUnderTest>>()> make;
};
inline void PrintTo(const XenFactory& factory, std::ostream* out) { *out << factory.name; }
inline std::string FactoryName(const ::testing::TestParamInfo<XenFactory>& info) {
  return info.param.name;
}

class XenContract : public ::testing::TestWithParam<XenFactory> {
 protected:
  void SetUp() override {
    auto xen = GetParam().make();
    ASSERT_TRUE(xen.ok()) << xen.status();
    xen_ = *std::move(xen);
  }

  std::unique_ptr<grants::GrantMapper> Mapper() {
    auto mapper = xen_->backend.platform->OpenGrantMapper();
    EXPECT_TRUE(mapper.ok()) << mapper.status();
    return mapper.ok() ? *std::move(mapper) : nullptr;
  }
  std::unique_ptr<grants::GrantSharer> Sharer() {
    auto sharer = xen_->guest.platform->OpenGrantSharer();
    EXPECT_TRUE(sharer.ok()) << sharer.status();
    return sharer.ok() ? *std::move(sharer) : nullptr;
  }
  static std::unique_ptr<grants::EventChannels> Events(const XenUnderTest::Side& side) {
    auto events = side.platform->OpenEventChannels();
    EXPECT_TRUE(events.ok()) << events.status();
    return events.ok() ? *std::move(events) : nullptr;
  }

  std::unique_ptr<XenUnderTest> xen_;
};

class GrantContract : public XenContract {};
class EventContract : public XenContract {};
class DeathContract : public XenContract {};
class PeerContract : public XenContract {};

// Whether `fd` becomes readable; only a broken implementation makes this wait for the whole limit.
bool BecomesReadable(int fd);
bool IsReadable(int fd);

// {"map", "3", "8", "9"} for Words("map", 3, {8, 9}): arguments of contract_peer.cc.
std::vector<std::string> Words(const char* what, uint32_t domain,
                               const std::vector<uint32_t>& numbers);

// A program in one of the domains, to be killed: contract_peer.cc.
class PeerProcess {
 public:
  // Starts it and waits for its answer: the numbers of its line.
  static std::unique_ptr<PeerProcess> Start(const XenUnderTest::Side& side,
                                            const std::vector<std::string>& arguments);
  ~PeerProcess() { Kill(); }
  const std::vector<uint32_t>& answer() const { return answer_; }
  void Kill();  // and waits for its end

 private:
  int kill_signal_ = SIGKILL;
  pid_t pid_ = -1;
  std::vector<uint32_t> answer_;
};

}  // namespace vmsg::test
