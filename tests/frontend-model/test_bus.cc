// SPDX-License-Identifier: Apache-2.0
#include "tests/frontend-model/test_bus.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

namespace vmsg::frontend {
namespace {

std::byte* Align(std::byte* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  return memory + (4096 - address % 4096) % 4096;
}

}  // namespace

TestEvents::TestEvents() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
TestEvents::~TestEvents() { ::close(fd_); }

absl::Status TestEvents::Notify(grants::EventPort port) {
  EXPECT_EQ(port, kPort);
  ++notified;
  if (on_notify) on_notify();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<grants::EventPort>> TestEvents::NextPending() {
  eventfd_t count;
  if (::eventfd_read(fd_, &count) != 0) return std::nullopt;
  return kPort;
}

absl::Status TestEvents::Unmask(grants::EventPort port) {
  EXPECT_EQ(port, kPort);
  ++unmasked;
  return absl::OkStatus();
}

void TestEvents::Raise() { ::eventfd_write(fd_, 1); }

TestBus::TestBus(RingTerms terms, uint32_t data_pages)
    : terms_(terms),
      memory_(new std::byte[(data_pages + 2) * 4096]()),
      page(reinterpret_cast<wire::RingInterface*>(Align(memory_.get()))),
      data(reinterpret_cast<std::byte*>(page + 1), data_pages * 4096),
      bus({page, data}, terms, &events, TestEvents::kPort),
      in_(&page->in, data.first(data.size() / 2), terms.suppression),
      out_(&page->out, data.subspan(data.size() / 2), terms.suppression, terms.max_message_size) {
  events.on_notify = [this] {
    if (!held) Run();
  };
}

std::vector<TestBus::Seen> TestBus::Of(wire::MessageId id) const {
  std::vector<Seen> found;
  std::copy_if(seen.begin(), seen.end(), std::back_inserter(found),
               [id](const Seen& one) { return one.id == id; });
  return found;
}

void TestBus::SendRaw(std::span<const std::byte> record) {
  ASSERT_TRUE(in_.Push(record).value());
  if (in_.Publish()) events.Raise();
}

void TestBus::Restart() {
  std::fill(reinterpret_cast<std::byte*>(page), reinterpret_cast<std::byte*>(page + 1),
            std::byte{0});
  in_ = wire::RingProducer(&page->in, data.first(data.size() / 2), terms_.suppression);
  out_ = wire::RingConsumer(&page->out, data.subspan(data.size() / 2), terms_.suppression,
                            terms_.max_message_size);
}

void TestBus::Run() {
  std::array<std::byte, wire::kMaxMessageSize> record;
  do {
    for (;;) {
      absl::StatusOr<std::optional<size_t>> size = out_.Pop(record);
      ASSERT_TRUE(size.ok()) << size.status();
      if (!size->has_value()) break;
      absl::StatusOr<wire::Message> message =
          wire::Decode(wire::Profile::V1(), std::span(record).first(**size));
      ASSERT_TRUE(message.ok()) << message.status();
      seen.push_back({.id = message->spec->id,
                      .type = std::to_integer<uint8_t>(record[0]),
                      .envelope = message->envelope,
                      .payload = {message->payload.begin(), message->payload.end()}});
      if (on_message && on_message()) return;
      const auto handler = handlers.find(message->spec->id);
      if (handler != handlers.end()) handler->second(*message);
    }
    if (out_.Release()) events.Raise();
  } while (out_.Arm().value());
}

}  // namespace vmsg::frontend
