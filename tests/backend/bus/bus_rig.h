// SPDX-License-Identifier: Apache-2.0
// A bus endpoint over a ring in plain memory, with a blunt driver on the other side, simulated time
// and no Xen: the test sends records and reads what comes back.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/bus/bus_endpoint.h"
#include "tests/backend/held_device.h"
#include "tests/backend/message_size.h"
#include "tests/backend/simulated_loop.h"
#include "tests/virtqueue/guest_memory.h"
#include "tests/virtqueue/ring_driver.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/flex_ring.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::testing {

// A message as the driver received it.
struct Received {
  std::vector<std::byte> record;
  wire::Message message() const { return *wire::Decode(wire::Profile::V1(), record); }
  wire::MessageId id() const { return message().spec->id; }
  bool response() const { return message().response; }
  uint16_t device() const { return message().envelope.dev_num; }
  uint16_t token() const { return message().envelope.token; }
  template <class Body>
  Body As() const {
    auto body = wire::Parse<Body>(wire::Profile::V1(), message());
    EXPECT_TRUE(body.ok()) << body.status();
    return body.ok() ? *body : Body{};
  }
};

// The event channel: level, masked until Unmask.
class FakeDoorbell final : public backend::Doorbell {
 public:
  explicit FakeDoorbell(backend::SimulatedLoop& loop) : loop_(loop) {}
  void Notify() override { ++notified; }
  void Unmask() override {
    ++unmasked;
    masked_ = false;
    if (std::exchange(pending_, false)) Raise();
  }
  // The frontend raises it.
  void Raise() {
    if (masked_) {
      pending_ = true;
      return;
    }
    masked_ = true;
    loop_.Post([this] { on_event(); });
  }
  bool masked() const { return masked_; }
  std::function<void()> on_event;
  int notified = 0;
  int unmasked = 0;

 private:
  backend::SimulatedLoop& loop_;
  bool masked_ = false;
  bool pending_ = false;
};

// Holds what is asked of it until the test answers.
class HeldMapper final : public backend::WindowMapper {
 public:
  struct MapCall {
    uint32_t directory;
    uint32_t pages;
    absl::AnyInvocable<void(absl::StatusOr<grants::GrantMapping>)> done;
  };
  struct UnmapCall {
    size_t pages;
    absl::AnyInvocable<void()> done;
  };
  void Map(uint32_t directory, uint32_t pages,
           absl::AnyInvocable<void(absl::StatusOr<grants::GrantMapping>)> done) override {
    maps.push_back({directory, pages, std::move(done)});
  }
  void Unmap(grants::GrantMapping mapping, absl::AnyInvocable<void()> done) override {
    unmaps.push_back({mapping.pages(), std::move(done)});
  }
  std::deque<MapCall> maps;
  std::deque<UnmapCall> unmaps;
};

class BusRig : public ::testing::Test, private backend::BusEvents {
 protected:
  static constexpr uint32_t kMaxPages = 256;
  static constexpr uint64_t kBuffer = uint64_t{64} * 4096;

  // `half`: bytes of each direction.
  explicit BusRig(size_t half = 8192, bool suppression = true,
                  size_t message_size = TestMessageSize(), uint32_t max_pages = kMaxPages)
      : in_(half / 8),
        out_(half / 8),
        to_(&interface_->out, Bytes(out_), suppression),
        from_(&interface_->in, Bytes(in_), suppression, message_size),
        message_size_(message_size),
        suppression_(suppression),
        max_pages_(max_pages) {
    Open();
  }
  ~BusRig() override { CloseEndpoint(); }

  void Open() {
    doorbell_.on_event = [this] { endpoint_->OnEvent(); };
    endpoint_ = std::make_unique<backend::BusEndpoint>(
        backend::BusEndpoint::Parts{.loop = loop_,
                                    .doorbell = doorbell_,
                                    .window = memory_.window(),
                                    .mapper = mapper_,
                                    .events = *this},
        backend::RingMemory{.interface = interface_.get(), .in = Bytes(in_), .out = Bytes(out_)},
        backend::BusOptions{.profile = &wire::Profile::V1(),
                            .message_size = message_size_,
                            .suppression = suppression_,
                            .max_window_pages = max_pages_,
                            .tap = nullptr});
    Run();
  }
  void CloseEndpoint() {
    if (endpoint_ == nullptr) return;
    bool closed = false;
    endpoint_->Close([&] { closed = true; });
    Run();
    for (auto& [number, view] : devices_) {
      while (!view->held.empty()) view->ReturnOne();
    }
    Run();
    while (!mapper_.maps.empty()) AnswerMap(absl::CancelledError());
    while (!mapper_.unmaps.empty()) AnswerUnmap();
    Run();
    EXPECT_TRUE(closed);
    endpoint_.reset();
  }

  std::shared_ptr<HeldDevice::View> AddDevice(uint16_t number, bool announce = false) {
    auto view = std::make_shared<HeldDevice::View>();
    absl::Status added = endpoint_->AddDevice(number, std::make_unique<HeldDevice>(view), announce);
    EXPECT_TRUE(added.ok()) << added;
    devices_[number] = view;
    return view;
  }

  // Into the ring, not visible before Publish.
  void PushRecord(const std::vector<std::byte>& record) {
    auto pushed = to_.Push(record);
    ASSERT_TRUE(pushed.ok() && *pushed) << "the test's own ring is full";
  }
  template <class Body>
  void Push(uint16_t device, uint16_t token, const Body& body) {
    std::vector<std::byte> record(wire::kMaxMessageSize);
    auto size = wire::Encode(wire::Profile::V1(), {device, token}, body, record);
    ASSERT_TRUE(size.ok()) << size.status();
    record.resize(*size);
    PushRecord(record);
  }
  // Makes it visible, raises the event if it is wanted, lets the backend run to rest.
  void Publish() {
    if (to_.Publish()) doorbell_.Raise();
    Run();
  }
  template <class Body>
  void Send(uint16_t device, uint16_t token, const Body& body) {
    Push(device, token, body);
    Publish();
  }
  void Run() { EXPECT_TRUE(loop_.RunUntilIdle()) << "the endpoint does not come to rest"; }

  std::vector<Received> Receive(size_t at_most = SIZE_MAX) {
    std::vector<Received> all;
    std::vector<std::byte> record(wire::kMaxMessageSize);
    while (all.size() < at_most) {
      auto size = from_.Pop(record);
      EXPECT_TRUE(size.ok()) << size.status();
      if (!size.ok() || !size->has_value()) break;
      all.push_back({{record.begin(), record.begin() + static_cast<long>(**size)}});
    }
    if (from_.Release()) doorbell_.Raise();
    // It wants to be told of the next one.
    EXPECT_TRUE(from_.Arm().ok());
    Run();
    return all;
  }
  // The one message there is.
  Received ReceiveOne() {
    std::vector<Received> all = Receive();
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? Received{} : all.front();
  }
  template <class Response, class Request>
  Response Call(uint16_t device, const Request& request) {
    const uint16_t token = ++last_token_;
    Send(device, token, request);
    last_ = ReceiveOne();
    EXPECT_EQ(last_.token(), token);
    EXPECT_EQ(last_.device(), device);
    return last_.As<Response>();
  }

  // The driver brings a device up, with queue 0 of 16 at `base`.
  RingDriver GoLive(uint16_t device, uint64_t base = 4096) {
    using namespace wire;  // NOLINT
    RingDriver ring(memory_, 16, base);
    constexpr uint32_t kReady = kStatusAcknowledge | kStatusDriver;
    Call<SetDeviceStatusResponse>(device, SetDeviceStatusRequest{kReady});
    const uint64_t features = kFeatureVersion1 | kFeatureRingReset;
    std::vector<std::byte> words(8);
    std::memcpy(words.data(), &features, 8);
    Call<SetDriverFeaturesResponse>(device, SetDriverFeaturesRequest{0, 2, WordView(words)});
    Call<SetDeviceStatusResponse>(device, SetDeviceStatusRequest{kReady | kStatusFeaturesOk});
    const auto& layout = ring.layout();
    Call<SetVqueueResponse>(
        device, SetVqueueRequest{0, layout.size, layout.desc, layout.driver, layout.device});
    const auto status = Call<SetDeviceStatusResponse>(
        device, SetDeviceStatusRequest{kReady | kStatusFeaturesOk | kStatusDriverOk});
    EXPECT_EQ(status.status, kReady | kStatusFeaturesOk | kStatusDriverOk);
    return ring;
  }
  // A buffer on queue 0, announced.
  void Offer(RingDriver& ring, uint16_t device, uint16_t head, uint64_t buffer = kBuffer) {
    ring.WriteDesc(head, {.address = buffer, .length = 64, .flags = kWrite});
    ring.MakeAvailable(head);
    Send(device, 0, wire::EventAvail{0, 0});
  }

  void AnswerMap(absl::StatusOr<grants::GrantMapping> mapping) {
    auto call = std::move(mapper_.maps.front());
    mapper_.maps.pop_front();
    call.done(std::move(mapping));
    Run();
  }
  void AnswerUnmap() {
    auto call = std::move(mapper_.unmaps.front());
    mapper_.unmaps.pop_front();
    call.done();
    Run();
  }

  static std::span<std::byte> Bytes(std::vector<uint64_t>& words) {
    return std::as_writable_bytes(std::span(words));
  }

  backend::SimulatedLoop loop_;
  FakeDoorbell doorbell_{loop_};
  HeldMapper mapper_;
  PageMapper pages_;  // for extensions
  GuestMemory memory_{128};
  std::unique_ptr<wire::RingInterface> interface_ = std::make_unique<wire::RingInterface>();
  std::vector<uint64_t> in_;
  std::vector<uint64_t> out_;
  wire::RingProducer to_;
  wire::RingConsumer from_;
  const size_t message_size_;
  const bool suppression_;
  const uint32_t max_pages_;
  std::map<uint16_t, std::shared_ptr<HeldDevice::View>> devices_;
  std::unique_ptr<backend::BusEndpoint> endpoint_;
  Received last_;
  uint16_t last_token_ = 0;

  std::vector<std::string> broken_;
  std::vector<uint16_t> resets_;
  std::vector<std::pair<int, std::string>> problems_;

 private:
  void OnBusBroken(const absl::Status& why) override { broken_.emplace_back(why.message()); }
  void OnDeviceReset(uint16_t number) override { resets_.push_back(number); }
  void OnProblem(int device, const absl::Status& what) override {
    problems_.emplace_back(device, what.message());
  }
};

}  // namespace vmsg::testing
