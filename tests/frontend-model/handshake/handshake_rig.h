// SPDX-License-Identifier: Apache-2.0
// A guest over the emulated Xen with a bus, and its backend, which the test plays on a thread of
// its own.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <thread>

#include "frontend-model/bus/bus_connection.h"
#include "tests/emulated-xen/emulated_xen.h"
#include "tests/frontend-model/handshake/scripted_backend.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::frontend {

// Only reached when something is broken.
inline Deadline Soon() { return After(std::chrono::seconds(20)); }

class HandshakeRig : public testing::Test {
 protected:
  void SetUp() override {
    auto xen = test::EmulatedXen::Start();
    ASSERT_TRUE(xen.ok()) << xen.status();
    xen_ = *std::move(xen);
    guest_ = xen_->CreateDomain("g1").value();
    dom0_platform_ = xen_->OpenPlatform(0).value();
    guest_platform_ = xen_->OpenPlatform(guest_).value();
    bus_ = {.frontend = guest_, .backend = 0, .id = 0};
    toolstack_ = xenstore::OpenStore(dom0_platform_->store_socket()).value();
    ASSERT_TRUE(xenstore::AddDevices(*toolstack_, bus_, {{.number = 0, .type = "rng"}}).ok());
    backend_ = ScriptedBackend::Open(*dom0_platform_, bus_);
    offer_.max_window_pages = 4096;
    offer_.max_ring_order = 4;
  }

  // Runs the backend's part beside `frontend`.
  void Beside(std::function<void(ScriptedBackend&)> script, std::function<void()> frontend) {
    std::thread thread([&] { script(*backend_); });
    frontend();
    thread.join();
  }
  void Connect(ScriptedBackend& b) {
    b.Offer(offer_);
    b.WaitForFrontend(xenstore::XenbusState::kInitialised);
    b.Map(offer_);
    b.SetState(xenstore::XenbusState::kConnected);
    b.WaitForFrontend(xenstore::XenbusState::kConnected);
  }
  void Disconnect(ScriptedBackend& b) {
    b.WaitForFrontend(xenstore::XenbusState::kClosing);
    b.SetState(xenstore::XenbusState::kClosing);
    b.WaitForFrontend(xenstore::XenbusState::kClosed);
    b.Unmap();
    b.SetState(xenstore::XenbusState::kClosed);
  }
  absl::StatusOr<std::unique_ptr<BusConnection>> Open() {
    return BusConnection::Open(*guest_platform_, options_);
  }
  long GuestGrants() { return xen_->DomainCounts(guest_).value().grants; }

  std::unique_ptr<test::EmulatedXen> xen_;
  grants::DomainId guest_ = 0;
  std::unique_ptr<grants::Platform> dom0_platform_, guest_platform_;
  xenstore::BusAddress bus_;
  std::unique_ptr<xenstore::Store> toolstack_;
  std::unique_ptr<ScriptedBackend> backend_;
  xenstore::BackendOffer offer_;
  ConnectOptions options_ = {.pages = 1100, .timeout = std::chrono::seconds(20)};
};

}  // namespace vmsg::frontend
