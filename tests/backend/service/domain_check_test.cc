// SPDX-License-Identifier: Apache-2.0
// A guest's end is noticed although xenstore does not tell: Xen is asked.
#include "backend/service/domain_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/backend/service/service_rig.h"
#include "tests/backend/simulated_loop.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class LostWatchTest : public ServiceRig {
 protected:
  void StartWithInterval(absl::Duration interval) {
    StopService();
    service_options_.domain_check_interval = interval;
    StartService();
  }
  // Without watches, which are what is lost here.
  void AwaitUnmapped() {
    for (int i = 0; i < kPatienceMs / 10; ++i) {
      if (platform_->hooks->MappedPages() == 0) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << platform_->hooks->MappedPages() << " pages stay mapped";
  }
};

TEST_F(LostWatchTest, DestroyedGuestIsUnmappedAlthoughEveryEventWasLost) {
  StartWithInterval(absl::Milliseconds(20));
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  ASSERT_TRUE(xen_->Fault({"store-lose", "0", "1000000"}).ok());
  ASSERT_TRUE(xen_->Destroy(guest).ok());
  AwaitUnmapped();
  auto counts = xen_->DomainCounts(guest);
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(counts->state, "") << "a zombie stays";
  for (int i = 0; i < kPatienceMs / 10 && Read(bus, "state") != "(none)"; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(Read(bus, "state"), "(none)") << "its directory stays";
  ASSERT_TRUE(xen_->Fault({"clear"}).ok());
}

TEST_F(LostWatchTest, GuestThatIsOnlyShutDownStaysConnected) {
  StartWithInterval(absl::Milliseconds(5));
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  ASSERT_TRUE(xen_->ShutDown(guest).ok());
  // Another one ends meanwhile, and that is noticed: so the question was asked.
  const grants::DomainId other = NewGuest();
  const auto gone = Attach(other, {0});
  ASSERT_TRUE(xen_->Destroy(other).ok());
  WaitFor(gone, "state", "(none)");
  EXPECT_EQ(Read(bus, "state"), "4");
  EXPECT_GT(platform_->hooks->MappedPages(), 0u);
  EXPECT_TRUE((*connection)->Close().ok());
}

// Answers what the test says, on simulated time.
class FakeDomains : public grants::DomainList {
 public:
  explicit FakeDomains(absl::StatusOr<std::vector<grants::DomainInfo>>* answer, int* asked)
      : answer_(answer), asked_(asked) {}
  absl::StatusOr<std::vector<grants::DomainInfo>> List() override {
    ++*asked_;
    return *answer_;
  }

 private:
  absl::StatusOr<std::vector<grants::DomainInfo>>* const answer_;
  int* const asked_;
};

class DomainCheckTest : public ::testing::Test {
 protected:
  void SetUp() override {
    backend::SetLogging(backend::LogLevel::kError, backend::LogStyle::kPlain);
    workers_.emplace();
    check_ = std::make_unique<backend::DomainCheck>(backend::DomainCheck::Parts{
        .loop = &loop_,
        .workers = &*workers_,
        .domains = std::make_unique<FakeDomains>(&answer_, &asked_),
        .interval = absl::Seconds(30),
        .guests = [this] { return guests_; },
        .label = [](uint16_t guest) { return absl::StrCat("guest ", guest); },
        .ended = [this](uint16_t guest) { ended_.push_back(guest); }});
  }
  void TearDown() override { check_.reset(); }
  // Runs what the check has begun to its end.
  void Settle() {
    int asked;
    do {
      AwaitWorkers();
      asked = asked_;
      ASSERT_TRUE(loop_.RunUntilIdle());
      AwaitWorkers();
    } while (asked != asked_);  // an answer is waiting for the loop
  }
  // Until no question is out; only then the test may look at what the workers write.
  void AwaitWorkers() {
    workers_.reset();
    workers_.emplace();
  }

  backend::SimulatedLoop loop_;
  std::optional<backend::WorkerPool> workers_;
  absl::StatusOr<std::vector<grants::DomainInfo>> answer_ = std::vector<grants::DomainInfo>();
  int asked_ = 0;
  std::vector<uint16_t> guests_, ended_;
  std::unique_ptr<backend::DomainCheck> check_;
};

TEST_F(DomainCheckTest, GoneAndDyingGuestsEndedAndShutDownOnesDidNot) {
  guests_ = {1, 2, 3, 4};
  answer_ = std::vector<grants::DomainInfo>{
      {.id = 0}, {.id = 2, .dying = true}, {.id = 3, .shut_down = true}, {.id = 4}, {.id = 9}};
  check_->SetNeeded(true);
  Settle();
  EXPECT_THAT(ended_, ElementsAre(1, 2));
}

TEST_F(DomainCheckTest, XenIsAskedAtEveryIntervalWhileThereAreGuests) {
  EXPECT_EQ(loop_.timers(), 0u);
  check_->Now();
  Settle();
  EXPECT_EQ(asked_, 0) << "nobody to look after";
  check_->SetNeeded(true);
  Settle();
  EXPECT_EQ(asked_, 1);
  for (int i = 2; i < 5; ++i) {
    loop_.Advance(absl::Seconds(30));
    Settle();
    EXPECT_EQ(asked_, i);
  }
  check_->SetNeeded(false);
  EXPECT_EQ(loop_.timers(), 0u) << "an idle service is not woken";
}

TEST_F(DomainCheckTest, QuestionsDoNotPileUp) {
  check_->SetNeeded(true);
  for (int i = 0; i < 100; ++i) check_->Now();
  Settle();
  EXPECT_EQ(asked_, 2) << "one that was out, and one for what happened since";
}

TEST_F(DomainCheckTest, GuestCreatedAfterTheQuestionIsNotJudgedByItsAnswer) {
  guests_ = {1};
  answer_ = std::vector<grants::DomainInfo>{{.id = 0}, {.id = 1}};
  check_->SetNeeded(true);
  guests_ = {1, 2};
  Settle();
  EXPECT_THAT(ended_, IsEmpty());
}

TEST_F(DomainCheckTest, WhereItIsNotPermittedNobodyEndsAndXenIsNotAskedAgain) {
  guests_ = {1};
  answer_ = absl::PermissionDeniedError("only a control domain may");
  check_->SetNeeded(true);
  Settle();
  EXPECT_EQ(loop_.timers(), 0u);
  check_->Now();
  Settle();
  EXPECT_THAT(ended_, IsEmpty());
  EXPECT_EQ(asked_, 1);
}

TEST_F(DomainCheckTest, FailureIsNoEndAndTheNextQuestionIsAsked) {
  guests_ = {1};
  answer_ = absl::UnavailableError("try again");
  check_->SetNeeded(true);
  Settle();
  EXPECT_THAT(ended_, IsEmpty());
  answer_ = std::vector<grants::DomainInfo>{{.id = 0}};
  loop_.Advance(absl::Seconds(30));
  Settle();
  EXPECT_THAT(ended_, ElementsAre(1));
}

}  // namespace
}  // namespace vmsg::testing
