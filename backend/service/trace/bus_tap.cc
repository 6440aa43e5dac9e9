// SPDX-License-Identifier: Apache-2.0
#include "backend/service/trace/bus_tap.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/describe.h"

namespace vmsg::backend {
namespace {

bool IsOfABuffer(std::span<const std::byte> message) {
  const absl::StatusOr<wire::Message> decoded = wire::Decode(wire::Profile::V1(), message);
  return decoded.ok() && (decoded->spec->id == wire::MessageId::kEventAvail ||
                          decoded->spec->id == wire::MessageId::kEventUsed);
}

class BusTap final : public MessageTap {
 public:
  BusTap(std::shared_ptr<Trace> trace, std::shared_ptr<RateLimitedLog> log, EventLoop& loop,
         const xenstore::BusAddress& bus)
      : trace_(std::move(trace)), log_(std::move(log)), loop_(loop), bus_(bus) {}

  void OnMessage(bool from_driver, std::span<const std::byte> message) override {
    trace_->Write(bus_.frontend, bus_.id, from_driver, message);
    if (!LogEnabled(LogLevel::kDebug) || IsOfABuffer(message)) return;
    if (!log_->Admit(LogLevel::kDebug, loop_.Now())) return;
    log_->Write(
        LogLevel::kDebug,
        absl::StrCat(from_driver ? "-> " : "<- ",
                     wire::Describe(wire::Profile::V1(), message,
                                    from_driver ? wire::Sender::kDriver : wire::Sender::kDevice)));
  }

 private:
  const std::shared_ptr<Trace> trace_;
  const std::shared_ptr<RateLimitedLog> log_;
  EventLoop& loop_;
  const xenstore::BusAddress bus_;
};

}  // namespace

std::unique_ptr<MessageTap> NewBusTap(std::shared_ptr<Trace> trace,
                                      std::shared_ptr<RateLimitedLog> log, EventLoop& loop,
                                      const xenstore::BusAddress& bus) {
  return std::make_unique<BusTap>(std::move(trace), std::move(log), loop, bus);
}

}  // namespace vmsg::backend
