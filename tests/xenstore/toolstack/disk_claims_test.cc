// SPDX-License-Identifier: Apache-2.0
// xl's standalone disks, with nodes as libxl 4.17 writes them.
#include "xenstore/standalone/disk_claims.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/xenstore/memory_store.h"
#include "xenstore/bus_offer.h"
#include "xenstore/reports/device_reports.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::xenstore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kDisk[] = "/local/domain/0/backend/virtio_disk/5/51728";  // xvdb
constexpr BusAddress kBusOfDisks{5, 0, 0};

class DiskClaimsTest : public testing::Test {
 protected:
  void SetUp() override {
    tree_.CreateDomain(5, "g1");
    Start();
  }
  void Start() {
    auto claims = DiskClaims::Start(store_.get(), 0, [this](bool error, const std::string& text) {
      if (error) errors_.push_back(text);
    });
    ASSERT_TRUE(claims.ok()) << claims.status();
    claims_ = *std::move(claims);
    Settle();
  }
  void Settle() {
    absl::StatusOr<bool> more = true;
    while (more.ok() && *more) more = claims_->Process();
    EXPECT_TRUE(more.ok()) << more.status();
  }
  // As libxl__device_generic_add does for such a disk.
  void XlAdds(const std::string& target = "/srv/x.img", const std::string& mode = "w") {
    ASSERT_TRUE(toolstack_
                    ->Transaction([&](NodeAccess& nodes) {
                      for (const auto& [node, value] :
                           std::vector<std::pair<std::string, std::string>>{
                               {"frontend", "/local/domain/5/device/virtio_disk/51728"},
                               {"params", target},
                               {"frontend-id", "5"},
                               {"online", "1"},
                               {"removable", "0"},
                               {"bootable", "1"},
                               {"state", "1"},
                               {"dev", "xvdb"},
                               {"type", "standalone"},
                               {"mode", mode},
                               {"device-type", "disk"},
                               {"discard-enable", "1"},
                               {"specification", "virtio"},
                               {"transport", "mmio"},
                               {"base", "0"},
                               {"irq", "0"}}) {
                        auto status = nodes.Write(absl::StrCat(kDisk, "/", node), value);
                        if (!status.ok()) return status;
                      }
                      return absl::OkStatus();
                    })
                    .ok());
  }
  // As libxl__initiate_device_generic_remove.
  void XlRemoves() {
    tree_.Set(absl::StrCat(kDisk, "/online"), "0");
    tree_.Set(absl::StrCat(kDisk, "/state"), "5");
  }
  std::string Disk(const std::string& node) { return tree_.Value(absl::StrCat(kDisk, "/", node)); }
  std::string Device(const std::string& node) {
    return tree_.Value(absl::StrCat(kBusOfDisks.BackendPath(), "/device/", node));
  }
  void VmsgdAnswers(const absl::Status& status) {
    ASSERT_TRUE(ReportDevice(*toolstack_, kBusOfDisks, "0", status).ok());
  }

  MemoryTree tree_;
  std::unique_ptr<MemoryStore> store_ = tree_.Connect(0);
  std::unique_ptr<MemoryStore> toolstack_ = tree_.Connect(0);
  std::vector<std::string> errors_;
  std::unique_ptr<DiskClaims> claims_;
};

TEST_F(DiskClaimsTest, DiskBecomesADeviceAndXlSeesState2WhenItIsReady) {
  XlAdds();
  Settle();
  EXPECT_EQ(Device("0/type"), "blk");
  EXPECT_EQ(Device("0/path"), "/srv/x.img");
  EXPECT_EQ(Device("0/readonly"), "0");
  EXPECT_EQ(Disk("state"), "1") << "not before the image is open";
  VmsgdAnswers(absl::OkStatus());
  Settle();
  EXPECT_EQ(Disk("state"), "2");
  EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(DiskClaimsTest, ReadOnlyDiskIsOne) {
  XlAdds("/srv/x.img", "r");
  Settle();
  EXPECT_EQ(Device("0/readonly"), "1");
}

TEST_F(DiskClaimsTest, RefusedImageTakesTheStateAwaySoThatXlFailsAtOnce) {
  XlAdds();
  Settle();
  VmsgdAnswers(absl::NotFoundError("path=\"/srv/x.img\": No such file"));
  Settle();
  EXPECT_EQ(Disk("state"), "(none)");
  EXPECT_THAT(Disk("hotplug-error"), HasSubstr("No such file"));
  EXPECT_THAT(errors_, ElementsAre(HasSubstr("No such file")));
  EXPECT_EQ(Device("0/type"), "(none)");
}

TEST_F(DiskClaimsTest, TargetThatIsNoPathIsRefused) {
  XlAdds("x.img");
  Settle();
  EXPECT_EQ(Disk("state"), "(none)");
  EXPECT_THAT(Disk("hotplug-error"), HasSubstr("absolute path"));
  EXPECT_FALSE(tree_.Has(kBusOfDisks.BackendPath()));
}

TEST_F(DiskClaimsTest, OtherBackendsDisksAreLeftAlone) {
  XlAdds();
  tree_.Set(absl::StrCat(kDisk, "/specification"), "xen");
  Settle();
  EXPECT_EQ(Disk("state"), "1");
  tree_.Set(absl::StrCat(kDisk, "/state"), "2");
  Settle();
  XlRemoves();
  tree_.Set(absl::StrCat(kDisk, "/state"), "4");
  Settle();
  EXPECT_EQ(Disk("state"), "4");
  EXPECT_FALSE(tree_.Has(kBusOfDisks.BackendPath()));
}

TEST_F(DiskClaimsTest, RemovedDiskIsClosedWhenItsDeviceIsGone) {
  XlAdds();
  Settle();
  VmsgdAnswers(absl::OkStatus());
  Settle();
  XlRemoves();
  Settle();
  EXPECT_EQ(Device("0/online"), "0");
  EXPECT_EQ(Device("0/force"), "1") << "the driver of a paused guest would not answer";
  EXPECT_EQ(Disk("state"), "5") << "the image is still in use";
  ASSERT_TRUE(toolstack_->Remove(absl::StrCat(kBusOfDisks.BackendPath(), "/device/0")).ok());
  Settle();
  EXPECT_EQ(Disk("state"), "6");
  // libxl removes it then; it is not made again.
  tree_.Erase(kDisk);
  Settle();
  EXPECT_FALSE(tree_.Has(kDisk));
}

TEST_F(DiskClaimsTest, DiskWhoseBusWentWithTheGuestIsClosed) {
  XlAdds();
  Settle();
  VmsgdAnswers(absl::OkStatus());
  Settle();
  tree_.Erase(kBusOfDisks.BackendPath());
  XlRemoves();
  Settle();
  EXPECT_EQ(Disk("state"), "6");
}

// Its own was detached by hand, and its number given to another one.
TEST_F(DiskClaimsTest, AnotherDeviceUnderTheNumberIsNotTakenForTheDisks) {
  XlAdds();
  Settle();
  const auto others = [this] {
    ASSERT_TRUE(toolstack_->Remove(absl::StrCat(kBusOfDisks.BackendPath(), "/device/0")).ok());
    ASSERT_TRUE(
        AddDevices(*toolstack_, kBusOfDisks, {{.number = 0, .type = "rng", .keys = {}}}).ok());
  };
  others();
  VmsgdAnswers(absl::InvalidArgumentError("no"));
  Settle();
  EXPECT_EQ(Device("0/type"), "rng");
  EXPECT_EQ(Disk("state"), "1");
  claims_.reset();
  Start();
  XlRemoves();
  Settle();
  EXPECT_EQ(Device("0/online"), "1");
  EXPECT_EQ(Disk("state"), "6");
}

TEST_F(DiskClaimsTest, ClaimedDiskIsKnownAfterARestart) {
  XlAdds();
  Settle();
  VmsgdAnswers(absl::OkStatus());
  Settle();
  claims_.reset();
  Start();
  EXPECT_EQ(Device("1/type"), "(none)") << "not claimed twice";
  XlRemoves();
  Settle();
  EXPECT_EQ(Device("0/online"), "0");
}

TEST_F(DiskClaimsTest, DirectoryThatVanishedIsNotMadeAgain) {
  XlAdds();
  Settle();
  tree_.Erase(kDisk);
  Settle();
  EXPECT_EQ(Device("0/online"), "0");
  ASSERT_TRUE(toolstack_->Remove(absl::StrCat(kBusOfDisks.BackendPath(), "/device/0")).ok());
  Settle();
  EXPECT_FALSE(tree_.Has(kDisk));
}

TEST_F(DiskClaimsTest, DriverDomainCannotClaim) {
  tree_.CreateDomain(3, "driver");
  auto store = tree_.Connect(3);
  EXPECT_TRUE(absl::IsPermissionDenied(
      DiskClaims::Start(store.get(), 3, [](bool, const std::string&) {}).status()));
}

}  // namespace
}  // namespace vmsg::xenstore
