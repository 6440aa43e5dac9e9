// SPDX-License-Identifier: Apache-2.0
// libFuzzer's entry: any bytes as a record, as a capture, and as what a peer left in a ring. With
// clang: cmake -DCMAKE_CXX_COMPILER=clang++ -DVMSG_SANITIZE=address,undefined, target fuzz_wire.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "virtio-msg/capture.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/describe.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::wire {
namespace {

// A failed expectation ends the run, as libFuzzer wants it.
void Expect(bool holds) {
  if (!holds) std::abort();
}

// A body that parses encodes to a message that parses again; CheckPayload agrees with Parse.
template <class Body>
void TryBody(const Message& message) {
  using Traits = BodyTraits<Body>;
  const bool matches = message.spec->id == Traits::kId && message.response == Traits::kResponse;
  const auto body = Parse<Body>(Profile::V1(), message);
  Expect(body.ok() == (matches && CheckPayload(message).ok()));
  if (!body.ok()) return;
  std::byte out[kMaxMessageSize];
  const auto size = Encode(Profile::V1(), message.envelope, *body, out);
  Expect(size.ok() && *size == kHeaderSize + message.payload.size());
  Expect(Decode(Profile::V1(), std::span(out).first(*size)).ok());
}

template <class... Bodies>
void TryBodies(const Message& message) {
  (TryBody<Bodies>(message), ...);
}

void TryRecord(std::span<const std::byte> bytes) {
  const std::string text = Describe(Profile::V1(), bytes);
  Expect(text.size() <= 400 + 4 * std::min(bytes.size(), kMaxMessageSize));
  for (const char c : text) Expect(c >= ' ' && c <= '~');
  const auto message = Decode(Profile::V1(), bytes);
  if (!message.ok()) return;
  TryBodies<GetDeviceInfoRequest, GetDeviceInfoResponse, GetDeviceFeaturesRequest,
            GetDeviceFeaturesResponse, SetDriverFeaturesRequest, SetDriverFeaturesResponse,
            GetConfigRequest, GetConfigResponse, SetConfigRequest, SetConfigResponse,
            GetDeviceStatusRequest, GetDeviceStatusResponse, SetDeviceStatusRequest,
            SetDeviceStatusResponse, GetVqueueRequest, GetVqueueResponse, SetVqueueRequest,
            SetVqueueResponse, ResetVqueueRequest, ResetVqueueResponse, GetShmRequest,
            GetShmResponse, EventConfig, EventAvail, EventUsed, GetDevicesRequest,
            GetDevicesResponse, PingRequest, PingResponse, EventDevice, WindowExtendRequest,
            WindowExtendResponse, WindowWithdrawRequest, WindowWithdrawResponse>(*message);
}

void TryCapture(std::span<const std::byte> bytes) {
  if (bytes.size() < kCaptureFileHeaderSize) return;
  const auto format = ParseCaptureFileHeader(bytes.first<kCaptureFileHeaderSize>());
  if (!format.ok()) return;
  bytes = bytes.subspan(kCaptureFileHeaderSize);
  while (true) {
    const auto packet = ParseCapturePacket(*format, bytes);
    if (!packet.ok() || !packet->has_value()) return;
    Expect((*packet)->size >= kCapturePacketHeaderSize && (*packet)->size <= bytes.size());
    TryRecord((*packet)->captured.message);
    bytes = bytes.subspan((*packet)->size);
  }
}

// The first four bytes are prod and cons, the rest the ring's contents.
void TryRing(std::span<const std::byte> bytes) {
  if (bytes.size() < 4) return;
  std::vector<uint64_t> words(64);
  const size_t size = std::min(bytes.size() - 4, words.size() * 8);
  if (size > 0) std::memcpy(words.data(), bytes.data() + 4, size);
  uint16_t prod, cons;
  std::memcpy(&prod, bytes.data(), 2);
  std::memcpy(&cons, bytes.data() + 2, 2);
  RingDirection shared{.cons = cons, .prod = prod, .event = prod, .want_space = cons};
  const std::span<std::byte> data = std::as_writable_bytes(std::span(words));

  RingConsumer consumer(&shared, data, (prod & 16) != 0, kMaxMessageSize);
  std::byte record[kMaxMessageSize];
  size_t popped = 0;
  while (true) {
    const auto got = consumer.Pop(record);
    if (!got.ok() || !got->has_value()) break;
    Expect(**got >= kHeaderSize && **got <= kMaxMessageSize);
    popped += PaddedRecordSize(**got);
    Expect(popped <= data.size());
    TryRecord(std::span(record).first(**got));
  }
  (void)consumer.Release();
  (void)consumer.Arm();

  shared.cons = cons;
  RingProducer producer(&shared, data, (prod & 16) != 0);
  for (int i = 0; i < 100; ++i) {
    const auto pushed = producer.Push(std::span(record).first(8 + (prod + 8u * i) % 256));
    (void)producer.Publish();
    if (!pushed.ok() || !*pushed) break;
  }
}

}  // namespace
}  // namespace vmsg::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  vmsg::wire::TryRecord(bytes);
  vmsg::wire::TryCapture(bytes);
  vmsg::wire::TryRing(bytes);
  return 0;
}
