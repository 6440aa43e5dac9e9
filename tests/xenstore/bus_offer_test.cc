// SPDX-License-Identifier: Apache-2.0
#include "xenstore/bus_offer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/xenstore/memory_store.h"
#include "xenstore/reports/device_reports.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::xenstore {
namespace {

using ::testing::HasSubstr;

constexpr BusAddress kOfferedBus{5, 0, 2};
const BackendOffer kOffer{
    .versions = {1}, .max_message_size = 264, .max_window_pages = 1024, .max_ring_order = 4};
constexpr FrontendRequest kRequest{.version = 1,
                                   .message_size = 264,
                                   .ring_ref = 8,
                                   .event_channel = 17,
                                   .directory_ref = 9,
                                   .directory_pages = 1024,
                                   .ring_event_idx = true,
                                   .queue_resume = true};

class BusOfferTest : public testing::Test {
 protected:
  void SetUp() override {
    tree_.CreateDomain(5, "g1");
    ASSERT_TRUE(AddDevices(*backend_, kOfferedBus, {}).ok());
  }
  std::string Front(const char* node) { return kOfferedBus.FrontendPath() + "/" + node; }
  std::string Back(const char* node) { return kOfferedBus.BackendPath() + "/" + node; }

  MemoryTree tree_;
  std::unique_ptr<MemoryStore> backend_ = tree_.Connect(0);
  std::unique_ptr<MemoryStore> frontend_ = tree_.Connect(5);
};

// [bus:Basic Concepts / Revisions / Advertising Transport Parameters]
TEST_F(BusOfferTest, FrontendReadsWhatTheBackendOffered) {
  ASSERT_TRUE(WriteOffer(*backend_, kOfferedBus, kOffer).ok());
  EXPECT_EQ(tree_.Value(Back("state")), "2");
  absl::StatusOr<BackendOffer> offer = ReadOffer(*frontend_, kOfferedBus);
  ASSERT_TRUE(offer.ok()) << offer.status();
  EXPECT_EQ(*offer, kOffer);
}

// [bus:Basic Concepts / Revisions / Advertising Transport Parameters]
TEST_F(BusOfferTest, BackendReadsWhatTheFrontendRequested) {
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, kRequest).ok());
  EXPECT_EQ(tree_.Value(Front("state")), "3");
  absl::StatusOr<FrontendRequest> request = ReadRequest(*backend_, kOfferedBus, kOffer);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(*request, kRequest);
}

TEST_F(BusOfferTest, AnswerIsWrittenOnlyWhileItsRequestStands) {
  const absl::Status refusal = absl::InvalidArgumentError("no");
  EXPECT_EQ(*AnswerRequest(*backend_, kOfferedBus, kOffer, kRequest, absl::OkStatus()),
            Standing::kWithdrawn);
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, kRequest).ok());
  FrontendRequest other = kRequest;
  other.ring_ref = 77;
  for (const absl::Status& answer : {absl::OkStatus(), refusal}) {
    EXPECT_EQ(*AnswerRequest(*backend_, kOfferedBus, kOffer, other, answer), Standing::kChanged);
    EXPECT_EQ(
        *AnswerRequest(*backend_, kOfferedBus, kOffer, absl::CancelledError("unread"), answer),
        Standing::kChanged);
  }
  EXPECT_EQ(tree_.Value(Back("state")), "1");
  EXPECT_EQ(tree_.Value(Back("hotplug-error")), "");
  // Others write all the time.
  tree_.FailCommits(5);
  EXPECT_EQ(*AnswerRequest(*backend_, kOfferedBus, kOffer, kRequest, absl::OkStatus()),
            Standing::kStands);
  EXPECT_EQ(tree_.Value(Back("state")), "4");
  tree_.FailCommits(1'000'000);
  EXPECT_EQ(*AnswerRequest(*backend_, kOfferedBus, kOffer, kRequest, absl::OkStatus()),
            Standing::kChanged);
  tree_.FailCommits(0);
  EXPECT_EQ(*AnswerRequest(*backend_, kOfferedBus, kOffer, kRequest, refusal), Standing::kStands);
  EXPECT_EQ(tree_.Value(Back("state")), "5");
  EXPECT_EQ(tree_.Value(Back("hotplug-error")), "no");
  EXPECT_EQ(tree_.Value(BackendErrorPath(kOfferedBus)), "no");
  tree_.Erase(kOfferedBus.BackendPath());
  EXPECT_TRUE(absl::IsNotFound(
      AnswerRequest(*backend_, kOfferedBus, kOffer, kRequest, absl::OkStatus()).status()));
  EXPECT_FALSE(tree_.Has(kOfferedBus.BackendPath()));
}

// Its nodes may say the same still; a refusal is for a frontend that waits for an answer.
TEST_F(BusOfferTest, OnlyAFrontendThatShows3Or4IsAnswered) {
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, kRequest).ok());
  FrontendRequest unknown = kRequest;
  unknown.version = 9;
  const absl::Status refusal = absl::InvalidArgumentError("no");
  for (const auto& [published, request] :
       {std::pair<FrontendRequest, absl::StatusOr<FrontendRequest>>(kRequest, kRequest),
        {unknown, refusal}}) {
    ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, published).ok());
    for (const char* state : {"0", "1", "2", "5", "6", "7", "8", "03", ""}) {
      tree_.Set(Front("state"), state);
      for (const absl::Status& answer : {refusal, absl::OkStatus()}) {
        EXPECT_EQ(*AnswerRequest(*backend_, kOfferedBus, kOffer, request, answer),
                  Standing::kWithdrawn)
            << state;
      }
    }
    EXPECT_EQ(tree_.Value(Back("state")), "1");
    EXPECT_EQ(tree_.Value(Back("hotplug-error")), "");
    EXPECT_FALSE(tree_.Has(BackendErrorPath(kOfferedBus)));
    for (const char* state : {"3", "4"}) {
      tree_.Set(Front("state"), state);
      EXPECT_EQ(*AnswerRequest(*backend_, kOfferedBus, kOffer, request, refusal),
                Standing::kStands);
      EXPECT_EQ(tree_.Value(Back("hotplug-error")), "no");
      ASSERT_TRUE(ClearBackendError(*backend_, kOfferedBus).ok());
      tree_.Set(Back("state"), "1");
    }
  }
}

TEST_F(BusOfferTest, RequestThatCannotBeReadIsRefusedAsThat) {
  FrontendRequest unknown = kRequest;
  unknown.version = 9;
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, unknown).ok());
  const auto request = ReadRequest(*backend_, kOfferedBus, kOffer);
  ASSERT_FALSE(request.ok());
  EXPECT_EQ(*AnswerRequest(*backend_, kOfferedBus, kOffer, request, request.status()),
            Standing::kStands);
  EXPECT_THAT(tree_.Value(Back("hotplug-error")), HasSubstr("version"));
}

TEST_F(BusOfferTest, ErrorThatIsOverIsRemoved) {
  ASSERT_TRUE(ReportBackendError(*backend_, kOfferedBus, absl::InvalidArgumentError("full")).ok());
  EXPECT_TRUE(ClearBackendError(*backend_, kOfferedBus).ok());
  EXPECT_EQ(tree_.Value(Back("hotplug-error")), "");
  EXPECT_FALSE(tree_.Has(BackendErrorPath(kOfferedBus)));
  EXPECT_TRUE(ClearBackendError(*backend_, kOfferedBus).ok());
}

TEST_F(BusOfferTest, RemovalIsReportedOfAnEntryThatIsToGo) {
  ASSERT_TRUE(AddDevices(*backend_, kOfferedBus, {{3, "rng", {}}}).ok());
  EXPECT_TRUE(
      absl::IsFailedPrecondition(ReportRemoval(*backend_, {kOfferedBus, 3, ""}, kStatusAsked)));
  EXPECT_FALSE(tree_.Has(Back("device/3/hotplug-status")));
  ASSERT_TRUE(RequestDeviceRemoval(*backend_, kOfferedBus, 3, false).ok());
  EXPECT_TRUE(ReportRemoval(*backend_, {kOfferedBus, 3, ""}, kStatusAsked).ok());
  EXPECT_EQ(tree_.Value(Back("device/3/hotplug-status")), "asked");
  EXPECT_TRUE(absl::IsNotFound(ReportRemoval(*backend_, {kOfferedBus, 4, ""}, kStatusDraining)));
  EXPECT_FALSE(tree_.Has(Back("device/4")));
}

TEST_F(BusOfferTest, OfferIsWrittenWholeOrNotAtAll) {
  tree_.FailWrites(3, absl::ResourceExhaustedError("quota"));
  EXPECT_TRUE(absl::IsResourceExhausted(WriteOffer(*backend_, kOfferedBus, kOffer)));
  EXPECT_EQ(tree_.Value(Back("state")), "1");
  EXPECT_FALSE(tree_.Has(Back("versions")));
}

TEST_F(BusOfferTest, CommitIsTriedAgainABoundedNumberOfTimes) {
  tree_.FailCommits(5);
  EXPECT_TRUE(WriteOffer(*backend_, kOfferedBus, kOffer).ok());
  tree_.FailCommits(1'000'000);
  EXPECT_TRUE(absl::IsAborted(WriteOffer(*backend_, kOfferedBus, kOffer)));
}

TEST_F(BusOfferTest, AStateIsNotWrittenIntoADirectoryThatIsGone) {
  tree_.Erase(kOfferedBus.BackendPath());
  EXPECT_TRUE(
      absl::IsNotFound(WriteState(*backend_, kOfferedBus.BackendPath(), XenbusState::kClosed)));
  EXPECT_TRUE(absl::IsNotFound(WriteOffer(*backend_, kOfferedBus, kOffer)));
  EXPECT_FALSE(tree_.Has(kOfferedBus.BackendPath()));
}

TEST_F(BusOfferTest, ARefusalDoesNotBringBackADirectoryThatIsGone) {
  tree_.Erase(kOfferedBus.BackendPath());
  EXPECT_TRUE(absl::IsNotFound(
      ReportBackendError(*backend_, kOfferedBus, absl::InvalidArgumentError("no"))));
  EXPECT_FALSE(tree_.Has(kOfferedBus.BackendPath()));
}

TEST_F(BusOfferTest, ABackendNodeThatNamesAnotherBusIsRefused) {
  tree_.Set(Front("backend"), "/local/domain/0/backend/virtio-msg/5/3");
  EXPECT_TRUE(absl::IsInvalidArgument(ReadOwnBus(*frontend_, kOfferedBus.id).status()));
}

// A frontend that knows nothing of a feature does not get it, whatever the backend offers.
TEST_F(BusOfferTest, AFeatureIsOffWithoutItsNode) {
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, kRequest).ok());
  tree_.Erase(Front("feature-ring-event-idx"));
  EXPECT_FALSE(ReadRequest(*backend_, kOfferedBus, kOffer)->ring_event_idx);
  EXPECT_TRUE(ReadRequest(*backend_, kOfferedBus, kOffer)->queue_resume);
  tree_.Erase(Front("feature-queue-resume"));
  EXPECT_FALSE(ReadRequest(*backend_, kOfferedBus, kOffer)->queue_resume);
}

// The next frontend may be another program: it says each time what it wants.
TEST_F(BusOfferTest, AFrontendThatDoesNotWantAFeatureSaysSo) {
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, kRequest).ok());
  FrontendRequest plain = kRequest;
  plain.ring_event_idx = plain.queue_resume = false;
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, plain).ok());
  EXPECT_EQ(*ReadRequest(*backend_, kOfferedBus, kOffer), plain);
}

TEST_F(BusOfferTest, AFeatureThatWasNotOfferedIsRefused) {
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, kRequest).ok());
  for (const bool suppression : {true, false}) {
    BackendOffer without = kOffer;
    (suppression ? without.ring_event_idx : without.queue_resume) = false;
    absl::StatusOr<FrontendRequest> request = ReadRequest(*backend_, kOfferedBus, without);
    ASSERT_TRUE(absl::IsInvalidArgument(request.status()));
    EXPECT_THAT(request.status().message(),
                HasSubstr(suppression ? "feature-ring-event-idx" : "feature-queue-resume"));
  }
}

TEST_F(BusOfferTest, AnOfferWithoutTheFeaturesIsReadAsOne) {
  BackendOffer plain = kOffer;
  plain.ring_event_idx = plain.queue_resume = false;
  ASSERT_TRUE(WriteOffer(*backend_, kOfferedBus, plain).ok());
  EXPECT_EQ(*ReadOffer(*frontend_, kOfferedBus), plain);
  tree_.Erase(Back("feature-ring-event-idx"));
  tree_.Erase(Back("feature-queue-resume"));
  EXPECT_EQ(*ReadOffer(*frontend_, kOfferedBus), plain);
}

TEST_F(BusOfferTest, RingAndDirectoryInOneGrantAreRefused) {
  FrontendRequest request = kRequest;
  request.directory_ref = request.ring_ref;
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, request).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(ReadRequest(*backend_, kOfferedBus, kOffer).status()));
}

TEST_F(BusOfferTest, UnreadableNodeIsRefusedNotFatal) {
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, kRequest).ok());
  // A backend in a driver domain may be denied what the guest owns.
  const BusAddress elsewhere{5, 6, 2};
  tree_.CreateDomain(6, "driver");
  std::unique_ptr<MemoryStore> driver_domain = tree_.Connect(6);
  EXPECT_TRUE(absl::IsPermissionDenied(ReadRequest(*driver_domain, elsewhere, kOffer).status()));
}

struct BadNode {
  const char* name;
  const char* node;
  std::optional<std::string> value;  // nullopt: missing
  const char* limit;                 // must be named
};

void PrintTo(const BadNode& bad, std::ostream* out) { *out << bad.name; }

class RequestRefused : public BusOfferTest, public testing::WithParamInterface<BadNode> {};
TEST_P(RequestRefused, NamesNodeAndLimit) {
  ASSERT_TRUE(WriteRequest(*frontend_, kOfferedBus, kRequest).ok());
  const BadNode& bad = GetParam();
  bad.value.has_value() ? tree_.Set(Front(bad.node), *bad.value) : tree_.Erase(Front(bad.node));
  absl::StatusOr<FrontendRequest> request = ReadRequest(*backend_, kOfferedBus, kOffer);
  ASSERT_TRUE(absl::IsInvalidArgument(request.status())) << request.status();
  EXPECT_THAT(request.status().message(), HasSubstr(Front(bad.node)));
  EXPECT_THAT(request.status().message(), HasSubstr(bad.limit));
}

std::vector<BadNode> BadRequests() {
  std::vector<BadNode> all = {
      {"VersionNotOffered", "version", "2", "knows 1"},
      {"MessageSizeBelow", "message-size", "51", "from 52 to 264"},
      {"MessageSizeAbove", "message-size", "265", "from 52 to 264"},
      {"RingRefReserved", "ring-ref", "7", "from 8"},
      {"RingRefZero", "ring-ref", "0", "from 8"},
      {"RingRefOver32Bits", "ring-ref", "4294967296", "4294967295"},
      {"EventChannelZero", "event-channel", "0", "from 1"},
      {"EventChannelAbove", "event-channel", "131072", "131071"},
      {"DirectoryRefReserved", "directory-ref", "7", "from 8"},
      {"DirectoryPagesZero", "directory-pages", "0", "from 1"},
      {"DirectoryPagesAbove", "directory-pages", "1025", "to 1024"},
      {"DirectoryPagesAll32Bits", "directory-pages", "4294967295", "to 1024"},
      {"FeatureNeither0Nor1", "feature-ring-event-idx", "2", "to 1"},
      {"FeatureEmpty", "feature-ring-event-idx", "", "to 1"},
  };
  // Each number, with each way of being no number.
  for (const char* node : {"version", "message-size", "ring-ref", "event-channel", "directory-ref",
                           "directory-pages"}) {
    all.push_back({"Missing", node, std::nullopt, "missing"});
    all.push_back({"Empty", node, "", "empty"});
    all.push_back({"Negative", node, "-9", "not a number"});
    all.push_back({"Garbage", node, "many", "not a number"});
    all.push_back({"TrailingGarbage", node, "60x", "not a number"});
    all.push_back({"Nul", node, std::string("60\0", 3), "not a number"});
    all.push_back({"Blank", node, " 60", "not a number"});
    all.push_back({"Huge", node, std::string(3000, '9'), "above the limit"});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(Nodes, RequestRefused, testing::ValuesIn(BadRequests()),
                         [](const auto& info) {
                           std::string name = info.param.node;
                           std::erase(name, '-');
                           return std::string(info.param.name) + "_" + name;
                         });

class OfferRefused : public BusOfferTest, public testing::WithParamInterface<BadNode> {};
TEST_P(OfferRefused, NamesNode) {
  ASSERT_TRUE(WriteOffer(*backend_, kOfferedBus, kOffer).ok());
  const BadNode& bad = GetParam();
  tree_.Set(Back(bad.node), *bad.value);
  absl::StatusOr<BackendOffer> offer = ReadOffer(*frontend_, kOfferedBus);
  ASSERT_TRUE(absl::IsInvalidArgument(offer.status())) << offer.status();
  EXPECT_THAT(offer.status().message(), HasSubstr(Back(bad.node)));
}
INSTANTIATE_TEST_SUITE_P(Nodes, OfferRefused,
                         testing::Values(BadNode{"VersionsEmpty", "versions", ""},
                                         BadNode{"VersionsTrailingComma", "versions", "1,"},
                                         BadNode{"VersionsDescending", "versions", "2,1"},
                                         BadNode{"VersionsTooMany", "versions",
                                                 "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18"},
                                         BadNode{"VersionsGarbage", "versions", "1,two"},
                                         BadNode{"MessageSizeBelow", "max-message-size", "44"},
                                         BadNode{"WindowEmpty", "max-window-pages", "0"},
                                         BadNode{"RingOrderAbove", "max-ring-order", "32"}),
                         [](const auto& info) { return info.param.name; });

TEST_F(BusOfferTest, RefusalReachesBothErrorNodesAndIsCutToFit) {
  ASSERT_TRUE(
      ReportBackendError(*backend_, kOfferedBus, absl::InvalidArgumentError(std::string(9000, 'x')))
          .ok());
  EXPECT_EQ(tree_.Value(BackendErrorPath(kOfferedBus)), std::string(1024, 'x'));
  EXPECT_EQ(tree_.Value(Back("hotplug-error")), std::string(1024, 'x'));
}

TEST_F(BusOfferTest, AnswerToADeviceEntry) {
  ASSERT_TRUE(AddDevices(*backend_, kOfferedBus, {{3, "rng", {}}}).ok());
  ASSERT_TRUE(
      ReportDevice(*backend_, kOfferedBus, "3", absl::InvalidArgumentError("no such file")).ok());
  EXPECT_EQ(tree_.Value(Back("device/3/hotplug-status")), "error");
  EXPECT_EQ(tree_.Value(Back("device/3/hotplug-error")), "no such file");
  ASSERT_TRUE(ReportDevice(*backend_, kOfferedBus, "3", absl::OkStatus()).ok());
  EXPECT_EQ(tree_.Value(Back("device/3/hotplug-status")), "connected");
  EXPECT_FALSE(tree_.Has(Back("device/3/hotplug-error")));
}

TEST_F(BusOfferTest, AnswerDoesNotBringBackAnEntryThatIsGone) {
  EXPECT_TRUE(absl::IsNotFound(ReportDevice(*backend_, kOfferedBus, "3", absl::OkStatus())));
  EXPECT_FALSE(tree_.Has(Back("device/3")));
}

TEST_F(BusOfferTest, FrontendFindsItsBus) {
  EXPECT_EQ(*ReadOwnBus(*frontend_, kOfferedBus.id), kOfferedBus);
  EXPECT_TRUE(absl::IsNotFound(ReadOwnBus(*frontend_, 3).status()));
  EXPECT_EQ(*OwnDomain(*frontend_), 5);
  EXPECT_EQ(*OwnDomain(*backend_), 0);
}

TEST(ParseBackendPath, TakesOnlyTheExactForm) {
  EXPECT_EQ(*ParseBackendPath("/local/domain/3/backend/virtio-msg/5/2"), (BusAddress{5, 3, 2}));
  for (const char* path :
       {"", "/", "/local/domain/3/backend/virtio-msg/5", "/local/domain/3/backend/virtio-msg/5/2/x",
        "/local/domain/3/backend/vbd/5/2", "local/domain/3/backend/virtio-msg/5/2",
        "/local/domain/-1/backend/virtio-msg/5/2", "/local/domain/65536/backend/virtio-msg/5/2",
        "/local/domain/3/backend/virtio-msg/99999/2",
        "/local/domain/3/backend/virtio-msg/5/4294967296",
        "/local/domain/../backend/virtio-msg/5/2"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseBackendPath(path).status())) << path;
  }
}

}  // namespace
}  // namespace vmsg::xenstore
