// SPDX-License-Identifier: Apache-2.0
// A backend that goes, at each step of what it does, and one that comes back, in each way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/frontend-model/handshake/handshake_rig.h"

namespace vmsg::frontend {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using xenstore::XenbusState;

class ComesBackTest : public HandshakeRig {
 protected:
  void SetUp() override {
    HandshakeRig::SetUp();
    offer_.queue_resume = true;
    options_.notice = [this](absl::string_view text) { notices_.emplace_back(text); };
  }
  // As the next vmsgd finds a bus that was connected: with nothing mapped.
  void Lose(ScriptedBackend& b) {
    b.Unmap();
    b.SetState(XenbusState::kClosed);
    b.WaitForFrontend(XenbusState::kInitialising);
  }
  void Answer(ScriptedBackend& b) {
    const wire::Message ping = b.Receive();
    b.Respond(ping, wire::PingResponse{3});
  }
  // A PING that was on its way when the backend went, and is answered by the next one.
  void ExpectPingSurvives(const std::function<void(ScriptedBackend&)>& meanwhile) {
    Beside(
        [&](ScriptedBackend& b) {
          Connect(b);
          b.Receive();
          Lose(b);
          meanwhile(b);
          Connect(b);
          EXPECT_EQ(b.request().directory_pages, 1100u);
          EXPECT_TRUE(b.request().queue_resume);
          EXPECT_EQ(b.window()[4096 * 1099], std::byte{0x77}) << "other pages";
          Answer(b);
          Disconnect(b);
        },
        [&] {
          auto connection = Open();
          ASSERT_TRUE(connection.ok()) << connection.status();
          *(*connection)->memory().At(4096 * 1099, 1) = std::byte{0x77};
          EXPECT_EQ((*connection)->bus().Ping(3, Soon()).status(), absl::OkStatus());
          EXPECT_EQ((*connection)->bus().losses(), 1u);
          EXPECT_TRUE((*connection)->Close().ok());
          EXPECT_EQ(GuestGrants(), 0);
        });
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("waiting for vmsgd in domain 0"),
                                      HasSubstr("connected again")));
  }
  // The next backend offers what `change` leaves of the offer: that ends the bus, with a reason.
  void ExpectRefused(const std::string& reason, const std::function<void()>& change) {
    Beside(
        [&](ScriptedBackend& b) {
          Connect(b);
          b.Receive();
          Lose(b);
          change();
          b.Offer(offer_);
        },
        [&] {
          {
            auto connection = Open();
            ASSERT_TRUE(connection.ok()) << connection.status();
            const absl::Status status = (*connection)->bus().Ping(3, Soon()).status();
            EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
            EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
          }
          EXPECT_EQ(GuestGrants(), 0);
        });
  }
  std::vector<std::string> notices_;
};

TEST_F(ComesBackTest, AtOnce) {
  ExpectPingSurvives([](ScriptedBackend&) {});
}

TEST_F(ComesBackTest, AndGoesAgainAfterItsOffer) {
  ExpectPingSurvives([this](ScriptedBackend& b) {
    b.Offer(offer_);
    b.WaitForFrontend(XenbusState::kInitialised);
    // The next one finds its own state 2, and offers again.
  });
}

TEST_F(ComesBackTest, AndGoesAgainWhileItMaps) {
  ExpectPingSurvives([this](ScriptedBackend& b) {
    b.Offer(offer_);
    b.WaitForFrontend(XenbusState::kInitialised);
    b.Map(offer_);
    b.Unmap();
  });
}

TEST_F(ComesBackTest, AndGoesAgainInAnOrderlyWayBeforeItConnects) {
  ExpectPingSurvives([this](ScriptedBackend& b) {
    b.Offer(offer_);
    b.WaitForFrontend(XenbusState::kInitialised);
    b.Map(offer_);
    b.SetState(XenbusState::kClosing);
    b.WaitForFrontend(XenbusState::kClosed);
    EXPECT_GE(GuestGrants(), 1100) << "it may still have them";
    Lose(b);
  });
}

// Its successor is another version, or was started with other options.
TEST_F(ComesBackTest, WithoutQueuesThatGoOn) {
  ExpectRefused("feature-queue-resume", [this] { offer_.queue_resume = false; });
}

TEST_F(ComesBackTest, WithoutOurVersion) {
  ExpectRefused("version 1", [this] { offer_.versions = {2}; });
}

TEST_F(ComesBackTest, WithASmallerLimit) {
  ExpectRefused("1100 pages", [this] { offer_.max_window_pages = 600; });
}

TEST_F(ComesBackTest, WithARefusal) {
  Beside(
      [&](ScriptedBackend& b) {
        Connect(b);
        b.Receive();
        Lose(b);
        b.Offer(offer_);
        b.WaitForFrontend(XenbusState::kInitialised);
        b.Refuse("no room for its pages");
        b.WaitForFrontend(XenbusState::kClosed);
      },
      [&] {
        auto connection = Open();
        ASSERT_TRUE(connection.ok()) << connection.status();
        const absl::Status status = (*connection)->bus().Ping(3, Soon()).status();
        EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
        EXPECT_THAT(std::string(status.message()), HasSubstr("no room for its pages"));
        EXPECT_EQ((*connection)->Close(), absl::OkStatus());
      });
  EXPECT_EQ(GuestGrants(), 0);
}

TEST_F(ComesBackTest, TooLateForAFrontendThatWaitsSoLong) {
  options_.patience = {};
  Beside(
      [&](ScriptedBackend& b) {
        Connect(b);
        b.Receive();
        Lose(b);
      },
      [&] {
        auto connection = Open();
        ASSERT_TRUE(connection.ok()) << connection.status();
        const absl::Status status = (*connection)->bus().Ping(3, Soon()).status();
        EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
        EXPECT_THAT(std::string(status.message()), HasSubstr("Does vmsgd run in domain 0?"));
      });
  EXPECT_EQ(GuestGrants(), 0);
}

}  // namespace
}  // namespace vmsg::frontend
