// SPDX-License-Identifier: Apache-2.0
// The service in this process, on an emulated Xen, with guests that the test plays.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/runtime/event_loop.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/supervisor.h"
#include "frontend-model/bus/bus_connection.h"
#include "tests/backend/service/held_timers.h"
#include "tests/backend/service/hooked_platform.h"
#include "tests/emulated-xen/emulated_xen.h"
#include "xenstore/store.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::testing {

class ServiceRig : public ::testing::Test {
 protected:
  static constexpr int kPatienceMs = 20'000;  // for what must happen; never for what must not

  void SetUp() override {
    backend::SetLogging(backend::LogLevel::kError, backend::LogStyle::kPlain);
    auto xen = test::EmulatedXen::Start();
    ASSERT_TRUE(xen.ok()) << xen.status();
    xen_ = *std::move(xen);
    auto platform = xen_->OpenPlatform(0);
    ASSERT_TRUE(platform.ok()) << platform.status();
    platform_ = std::make_unique<HookedPlatform>(*std::move(platform));
    auto store = xenstore::OpenStore(xen_->StoreSocket(0));
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    StartService();
  }
  void TearDown() override {
    platform_->hooks->OnMap(nullptr);
    platform_->hooks->OnUnmap(nullptr);
    if (thread_.joinable()) StopService();
    EXPECT_EQ(platform_->hooks->MappedPages(), 0u) << "left mapped";
    store_.reset();
    xen_.reset();
  }

  void StartService() {
    loop_ = backend::NewEpollLoop({absl::ZeroDuration()});
    timers_ = std::make_unique<HeldTimers>(loop_.get());
    auto supervisor = backend::Supervisor::Start(ServiceLoop(), *platform_, service_options_,
                                                 [this](absl::Status status) {
                                                   stopped_ = std::move(status);
                                                   loop_->Stop();
                                                 });
    ASSERT_TRUE(supervisor.ok()) << supervisor.status();
    supervisor_ = *std::move(supervisor);
    thread_ = std::thread([this] { loop_->Run(); });
  }
  backend::EventLoop* ServiceLoop() {
    if (hold_timers_) return timers_.get();
    return loop_.get();
  }
  // The long timers that are held, run on the loop's thread.
  size_t RunHeldTimers() {
    std::promise<size_t> ran;
    loop_->Post([&] { ran.set_value(timers_->RunHeld()); });
    return ran.get_future().get();
  }
  // As SIGTERM.
  void StopService() {
    loop_->Post([this] { supervisor_->Stop(); });
    thread_.join();
    supervisor_.reset();
    ASSERT_TRUE(stopped_.has_value());
    EXPECT_TRUE(stopped_->ok()) << *stopped_;
    loop_.reset();
  }

  grants::DomainId NewGuest() {
    auto domain = xen_->CreateDomain();
    EXPECT_TRUE(domain.ok()) << domain.status();
    return domain.value_or(0);
  }
  // A bus with rng devices of these numbers, answered by the service.
  xenstore::BusAddress Attach(grants::DomainId domain, const std::vector<uint16_t>& numbers,
                              uint32_t id = 0) {
    const xenstore::BusAddress bus{.frontend = domain, .backend = 0, .id = id};
    std::vector<xenstore::DeviceNodesToWrite> devices;
    devices.reserve(numbers.size());
    for (uint16_t number : numbers) devices.push_back({.number = number, .type = "rng"});
    auto added = xenstore::AddDevices(*store_, bus, devices);
    EXPECT_TRUE(added.ok()) << added.status();
    for (uint16_t number : numbers) {
      WaitFor(bus, absl::StrCat("device/", number, "/hotplug-status"), "connected");
    }
    return bus;
  }
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> Connect(grants::DomainId domain,
                                                                   uint32_t id = 0,
                                                                   uint32_t pages = 64) {
    auto platform = xen_->OpenPlatform(domain);
    if (!platform.ok()) return platform.status();
    return frontend::BusConnection::Open(**platform, {.bus_id = id, .pages = pages});
  }
  std::string Read(const xenstore::BusAddress& bus, const std::string& node) {
    return store_->Read(absl::StrCat(bus.BackendPath(), "/", node)).value_or("(none)");
  }
  // Waits until the node of the backend directory has this value; "(none)": until it is gone.
  void WaitFor(const xenstore::BusAddress& bus, const std::string& node, const std::string& value) {
    const std::string path = absl::StrCat(bus.BackendPath(), "/", node);
    ASSERT_TRUE(store_->Watch(path, "wait").ok());
    while (Read(bus, node) != value) {
      pollfd wait{.fd = store_->fd(), .events = POLLIN, .revents = 0};
      if (poll(&wait, 1, kPatienceMs) <= 0) {
        ADD_FAILURE() << path << " is " << Read(bus, node) << ", never became " << value;
        break;
      }
      ASSERT_TRUE(store_->TakeWatchEvents().ok());
    }
    ASSERT_TRUE(store_->Unwatch(path, "wait").ok());
  }
  // The service has seen all that this test wrote before: another bus's offer is later than that.
  void AwaitQuiet() {
    const xenstore::BusAddress later = Attach(NewGuest(), {0});
    WaitFor(later, "state", "2");
  }
  // Waits until a node of the frontend directory has none of the values seen before.
  std::string AwaitOther(const xenstore::BusAddress& bus, const std::string& node,
                         const std::string& before) {
    const std::string path = absl::StrCat(bus.FrontendPath(), "/", node);
    EXPECT_TRUE(store_->Watch(path, "wait").ok());
    std::string now = store_->Read(path).value_or("");
    while (now == before) {
      pollfd wait{.fd = store_->fd(), .events = POLLIN, .revents = 0};
      if (poll(&wait, 1, kPatienceMs) <= 0) {
        ADD_FAILURE() << path << " stayed " << now;
        break;
      }
      EXPECT_TRUE(store_->TakeWatchEvents().ok());
      now = store_->Read(path).value_or("");
    }
    EXPECT_TRUE(store_->Unwatch(path, "wait").ok());
    return now;
  }
  void WriteFrontendState(const xenstore::BusAddress& bus, xenstore::XenbusState state) {
    ASSERT_TRUE(xenstore::WriteState(*store_, bus.FrontendPath(), state).ok());
  }

  bool hold_timers_ = false;  // before StartService
  std::unique_ptr<HeldTimers> timers_;
  backend::ServiceOptions service_options_ = {.io_threads = 1, .max_window_pages = 2048};
  std::unique_ptr<test::EmulatedXen> xen_;
  std::unique_ptr<HookedPlatform> platform_;
  std::unique_ptr<xenstore::Store> store_;  // the toolstack's
  std::unique_ptr<backend::ThreadLoop> loop_;
  std::unique_ptr<backend::Supervisor> supervisor_;
  std::thread thread_;
  std::optional<absl::Status> stopped_;
};

}  // namespace vmsg::testing
