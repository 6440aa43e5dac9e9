// SPDX-License-Identifier: Apache-2.0
// BusConnection over the emulated Xen, against a backend that the test plays on a thread of its
// own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>

#include "grants/directory.h"
#include "tests/frontend-model/handshake/handshake_rig.h"

namespace vmsg::frontend {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using xenstore::XenbusState;

class HandshakeTest : public HandshakeRig {};

TEST_F(HandshakeTest, ConnectsWorksAndCloses) {
  Beside(
      [&](ScriptedBackend& b) {
        Connect(b);
        EXPECT_EQ(b.request().directory_pages, 1100u);
        EXPECT_EQ(b.request().message_size, 264u);
        const wire::Message ping = b.Receive();
        EXPECT_EQ(b.window()[4096 * 1099], std::byte{0x77});
        b.Respond(ping, wire::PingResponse{5});
        Disconnect(b);
      },
      [&] {
        auto connection = Open();
        ASSERT_TRUE(connection.ok()) << connection.status();
        *(*connection)->memory().At(4096 * 1099, 1) = std::byte{0x77};
        EXPECT_TRUE((*connection)->bus().Ping(5, Soon()).ok());
        EXPECT_TRUE((*connection)->Close().ok());
        EXPECT_EQ(GuestGrants(), 0);
      });
}

// The grants must outlive the backend's mappings, or the guest's kernel gets its pages back at a
// crawl.
TEST_F(HandshakeTest, GrantsEndOnlyAfterTheBackendHasUnmapped) {
  Beside(
      [&](ScriptedBackend& b) {
        Connect(b);
        b.WaitForFrontend(XenbusState::kClosing);
        EXPECT_GE(GuestGrants(), 1100);
        b.SetState(XenbusState::kClosing);
        b.WaitForFrontend(XenbusState::kClosed);
        EXPECT_GE(GuestGrants(), 1100);
        b.Unmap();
        b.SetState(XenbusState::kClosed);
      },
      [&] {
        auto connection = Open();
        ASSERT_TRUE(connection.ok()) << connection.status();
        EXPECT_TRUE((*connection)->Close().ok());
      });
  EXPECT_EQ(xen_->DomainCounts(guest_).value().deferred, 0);
}

TEST_F(HandshakeTest, ARefusalIsReportedWithTheBackendsReason) {
  Beside(
      [&](ScriptedBackend& b) {
        b.Offer(offer_);
        b.WaitForFrontend(XenbusState::kInitialised);
        b.Refuse("directory-pages is 1100, at most 7");
        b.WaitForFrontend(XenbusState::kClosed);
      },
      [&] {
        const absl::Status status = Open().status();
        EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
        EXPECT_THAT(std::string(status.message()), HasSubstr("directory-pages is 1100, at most 7"));
      });
  EXPECT_EQ(GuestGrants(), 0);
  EXPECT_THAT(toolstack_->Read(xenstore::FrontendErrorPath(bus_)).value(), HasSubstr("at most 7"));
}

TEST_F(HandshakeTest, WithoutABackendTheDeadlineSaysWhatIsMissing) {
  options_.timeout = {};
  const absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(bus_.BackendPath()), HasSubstr("vmsgd")));
}

TEST_F(HandshakeTest, AWindowBeyondTheOfferIsRefusedBeforeAnythingIsGranted) {
  offer_.max_window_pages = 1099;
  backend_->Offer(offer_);
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GuestGrants(), 0);
}

// [driver:Basic Concepts / Revisions / Driver Limits]
TEST_F(HandshakeTest, AnOfferWithoutOurVersionIsRefused) {
  offer_.versions = {2, 3};
  backend_->Offer(offer_);
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(HandshakeTest, ABusThatDoesNotExistIsNotFound) {
  options_.bus_id = 5;
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(HandshakeTest, ABackendThatClosesFailsTheBusWithItsReason) {
  Beside(
      [&](ScriptedBackend& b) {
        Connect(b);
        b.Receive();
        b.Unmap();
        b.Refuse("the ring is broken: out_prod went back");
        b.WaitForFrontend(XenbusState::kClosed);
      },
      [&] {
        auto connection = Open();
        ASSERT_TRUE(connection.ok()) << connection.status();
        const absl::Status status = (*connection)->bus().Ping(1, Soon()).status();
        EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
        EXPECT_THAT(std::string(status.message()), HasSubstr("out_prod went back"));
      });
}

TEST_F(HandshakeTest, ReconnectsAfterClose) {
  Beside(
      [&](ScriptedBackend& b) {
        for (int i = 0; i < 2; ++i) {
          Connect(b);
          const wire::Message ping = b.Receive();
          b.Respond(ping, wire::PingResponse{7});
          Disconnect(b);
        }
      },
      [&] {
        auto connection = Open();
        ASSERT_TRUE(connection.ok()) << connection.status();
        EXPECT_TRUE((*connection)->bus().Ping(7, Soon()).ok());
        ASSERT_TRUE((*connection)->Close().ok());
        const absl::Status again = (*connection)->Reconnect();
        ASSERT_TRUE(again.ok()) << again;
        EXPECT_TRUE((*connection)->bus().Ping(7, Soon()).ok());
        EXPECT_TRUE((*connection)->Close().ok());
      });
}

TEST_F(HandshakeTest, TheWindowGrowsAndShrinks) {
  Beside(
      [&](ScriptedBackend& b) {
        Connect(b);
        wire::Message message = b.Receive();
        const auto extend =
            wire::Parse<wire::WindowExtendRequest>(wire::Profile::V1(), message).value();
        const auto refs =
            grants::WalkDirectory(b.mapper(), guest_, extend.directory_ref, extend.pages, {4096});
        ASSERT_TRUE(refs.ok()) << refs.status();
        auto mapping = b.mapper().Map(guest_, *refs, grants::Access::kReadWrite).value();
        b.Respond(message, wire::WindowExtendResponse{.result = 0, .first_page = 1100});
        message = b.Receive();
        const auto withdraw =
            wire::Parse<wire::WindowWithdrawRequest>(wire::Profile::V1(), message).value();
        EXPECT_EQ(withdraw.first_page, 1100u);
        EXPECT_EQ(withdraw.pages, 64u);
        EXPECT_EQ(mapping.bytes()[0], std::byte{0x42});
        mapping.Reset();
        b.Respond(message, wire::WindowWithdrawResponse{.result = 0});
        message = b.Receive();
        b.Respond(message, wire::WindowExtendResponse{.result = 2, .first_page = 0});
        Disconnect(b);
      },
      [&] {
        auto connection = Open();
        ASSERT_TRUE(connection.ok()) << connection.status();
        BusConnection& c = **connection;
        const long before = GuestGrants();
        const auto first = c.ExtendWindow(64, Soon());
        ASSERT_TRUE(first.ok()) << first.status();
        EXPECT_EQ(*first, 1100u);
        EXPECT_EQ(c.memory().pages(), 1164u);
        *c.memory().At(1100 * 4096, 1) = std::byte{0x42};
        ASSERT_TRUE(c.WithdrawWindow(1100, 64, Soon()).ok());
        EXPECT_EQ(c.memory().pages(), 1100u);
        EXPECT_EQ(GuestGrants(), before);
        const absl::Status over = c.ExtendWindow(64, Soon()).status();
        EXPECT_EQ(over.code(), absl::StatusCode::kResourceExhausted);
        EXPECT_EQ(GuestGrants(), before);
        EXPECT_TRUE(c.Close().ok());
      });
}

// A toolstack that removes the bus by force leaves nothing to close: not the backend's directory,
// which the guest may not tell from a forbidden one, and not its own.
TEST_F(HandshakeTest, CloseOfABusThatWasRemovedIsOk) {
  for (const bool own_too : {false, true}) {
    std::latch connected{1};
    Beside(
        [&](ScriptedBackend& b) {
          Connect(b);
          b.Unmap();
          connected.count_down();
        },
        [&] {
          auto connection = Open();
          ASSERT_TRUE(connection.ok()) << connection.status();
          connected.wait();
          if (own_too) {
            ASSERT_EQ(xenstore::RemoveBus(*toolstack_, bus_), absl::OkStatus());
          } else {
            ASSERT_EQ(toolstack_->Remove("/local/domain/0/backend"), absl::OkStatus());
          }
          EXPECT_EQ((*connection)->Close(), absl::OkStatus());
          EXPECT_EQ(GuestGrants(), 0);
        });
    ASSERT_EQ(xenstore::RemoveBus(*toolstack_, bus_), absl::OkStatus());
    ASSERT_TRUE(xenstore::AddDevices(*toolstack_, bus_, {{.number = 0, .type = "rng"}}).ok());
  }
}

}  // namespace
}  // namespace vmsg::frontend
