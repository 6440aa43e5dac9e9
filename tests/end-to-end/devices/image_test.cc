// SPDX-License-Identifier: Apache-2.0
// Images as vmsgd opens them, in its sandbox: what this machine has, and what a guest wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <string>

#include "tests/devices/blk/loop_disk.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ImageEndToEndTest, AHeaderThatAGuestWroteCostsItNothingWhenVmsgdStartsAnew) {
  auto machine = Machine::Start();
  ASSERT_TRUE(machine.ok()) << machine.status();
  const std::string image = (*machine)->MakeFile("disk", std::string(1 << 20, '\0'));
  auto guest = (*machine)->CreateGuest("g1", {"type=blk,path=" + image});
  ASSERT_TRUE(guest.ok()) << guest.status();
  auto write = (*machine)->Frontend(*guest, {"blk", "write", "--flush", "-"},
                                    "QFI\xfb" + std::string(508, '\0'));
  ASSERT_TRUE(write.ok()) << write.status();
  ASSERT_EQ(write->exit_status, 0) << write->err;
  (*machine)->service().Signal(SIGKILL);
  (*machine)->service().Wait();
  ASSERT_TRUE((*machine)->StartService().ok());
  auto read = (*machine)->Frontend(*guest, {"blk", "read", "--length=512", "-"});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->out.substr(0, 3), "QFI") << read->err << (*machine)->service_log();

  // An administrator who attaches it anew is told, and decides.
  auto detached = (*machine)->Ctl({"detach", "g1", "0"});
  ASSERT_TRUE(detached.ok() && detached->exit_status == 0) << detached->err;
  auto refused = (*machine)->Ctl({"attach", "g1", "type=blk,path=" + image});
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_EQ(refused->exit_status, 1);
  EXPECT_THAT(refused->err, AllOf(HasSubstr("qcow2"), HasSubstr("its guest can write that"),
                                  HasSubstr("format=raw")));
  auto attached = (*machine)->Ctl({"attach", "g1", "type=blk,format=raw,path=" + image});
  ASSERT_TRUE(attached.ok()) << attached.status();
  EXPECT_EQ(attached->exit_status, 0) << attached->err;
}

// Everything that is asked of the kernel about a disk, by the process that its filter kills when it
// asks for more.
TEST(ImageEndToEndTest, AFileAndItsLoopDeviceAreOneDisk) {
  auto machine = Machine::Start();
  ASSERT_TRUE(machine.ok()) << machine.status();
  const std::string content = Machine::Pattern(1 << 20, 1);
  const std::string image = (*machine)->MakeFile("disk", content);
  auto guest = (*machine)->CreateGuest("g1", {"type=rng,num=7"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  const auto attach = [&](const std::string& path, const std::string& more = "") {
    auto ran = (*machine)->Ctl({"attach", "g1", "type=blk,path=" + path + more});
    EXPECT_TRUE(ran.ok()) << ran.status();
    EXPECT_EQ(ran->exit_status, ran->err.empty() ? 0 : 1);
    return ran->err;
  };
  const auto detach = [&] {
    auto ran = (*machine)->Ctl({"detach", "g1", "0"});
    EXPECT_TRUE(ran.ok() && ran->exit_status == 0) << ran->err;
  };
  {
    const vmsg::testing::LoopDisk loop(image, /*read_only=*/false);
    if (!loop.why_not.empty()) GTEST_SKIP() << loop.why_not;
    EXPECT_THAT(attach(image), HasSubstr("is the file of " + loop.path()));
    EXPECT_EQ(attach(loop.path()), "");
    auto read = (*machine)->Frontend(*guest, {"blk", "read", "-"});
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_TRUE(read->out == content) << read->err;
    EXPECT_THAT(attach(image), HasSubstr("in use"));
    EXPECT_THAT(attach(loop.path(), ",readonly=1"), HasSubstr("in use"));
    detach();
    EXPECT_EQ(attach(loop.path(), ",readonly=1"), "");
    detach();
  }
  EXPECT_EQ(attach(image), "") << (*machine)->service_log();
}

}  // namespace
}  // namespace vmsg::test
