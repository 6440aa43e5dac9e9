// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/rng/rng.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "virtio-msg/virtio_ids.h"

namespace vmsg::backend {
namespace {

// The kernel has no randomness yet (early at boot): how long the guest's request waits.
constexpr absl::Duration kRetry = absl::Milliseconds(100);

ssize_t FromKernel(void* bytes, size_t size) { return getrandom(bytes, size, GRND_NONBLOCK); }

class RngDevice final : public Device {
 public:
  RngDevice(EventLoop* loop, RandomSource source) : loop_(loop), source_(source) {
    identity_.device_id = wire::kDeviceIdEntropy;
    identity_.max_queue_sizes = {kRngMaxQueueSize};
  }
  ~RngDevice() override { CancelRetry(); }

  const DeviceIdentity& identity() const override { return identity_; }
  void ReadConfig(uint32_t, std::span<std::byte>) const override {}
  absl::Status WriteConfig(uint32_t, std::span<const std::byte>) override {
    return absl::InvalidArgumentError("an entropy device has no configuration");
  }
  void OnStart(DeviceHost& host, uint64_t) override { host_ = &host; }

  bool OnQueue(uint32_t queue, uint32_t budget) override {
    if (host_ == nullptr || held_.has_value()) return false;
    SplitQueue* const split_queue = host_->queue(queue);
    if (split_queue == nullptr) return false;
    const uint64_t broken = split_queue->broken_chains();
    returned_ = false;
    absl::Status failure;
    given_ = 0;
    for (uint32_t taken = 0; taken < budget && given_ < kRngMaxBytesPerTurn && !held_.has_value();
         ++taken) {
      absl::StatusOr<std::optional<DescriptorChain>> chain = split_queue->Pop();
      if (!chain.ok()) {
        failure = chain.status();
        break;
      }
      if (!chain->has_value()) break;
      Serve(split_queue, *std::move(*chain));
    }
    const bool more = failure.ok() && !held_.has_value() && split_queue->HasAvailable();
    if (returned_ || split_queue->broken_chains() != broken) host_->Completed(queue);
    if (!failure.ok() && host_ != nullptr) host_->NeedsReset(failure);
    return more;
  }

  void OnQueueStopping(uint32_t) override {
    CancelRetry();
    if (!held_.has_value()) return;
    DescriptorChain chain = *std::exchange(held_, std::nullopt);
    held_queue_->Return(std::move(chain), 0);
  }

  void OnReset() override { host_ = nullptr; }

 private:
  void Serve(SplitQueue* split_queue, DescriptorChain chain) {
    size_t filled = 0;
    const size_t wanted = std::min<uint64_t>(chain.writable_bytes, kRngMaxBytesPerRequest);
    for (const iovec& piece : chain.writable) {
      const size_t part = std::min(piece.iov_len, wanted - filled);
      size_t done = 0;
      while (done < part) {
        const ssize_t got = source_(static_cast<char*>(piece.iov_base) + done, part - done);
        if (got <= 0) break;  // EAGAIN, or EINTR with nothing done: what there is goes back
        done += got;
      }
      filled += done;
      if (done < part || filled == wanted) break;
    }
    if (filled == 0 && wanted > 0) {
      // At least one byte is due, so the request waits, and those behind it in the queue.
      held_ = std::move(chain);
      held_queue_ = split_queue;
      retry_ = loop_->RunAfter(kRetry, [this] { Retry(); });
      return;
    }
    returned_ = true;
    given_ += filled;
    split_queue->Return(std::move(chain), static_cast<uint32_t>(filled));
  }

  void Retry() {
    retry_.reset();
    if (!held_.has_value()) return;
    Serve(held_queue_, *std::exchange(held_, std::nullopt));
    if (held_.has_value() || host_ == nullptr) return;
    host_->Completed(0);
    Continue();
  }

  // What arrived while a request was held was left in the queue.
  void Continue() {
    retry_.reset();
    const bool more = OnQueue(0, kRngMaxQueueSize);
    if (host_ == nullptr || held_.has_value()) return;
    SplitQueue* const split_queue = host_->queue(0);
    if (split_queue == nullptr || (!more && !split_queue->EnableKicks())) return;
    retry_ = loop_->RunAfter(absl::ZeroDuration(), [this] { Continue(); });
  }

  void CancelRetry() {
    if (retry_.has_value()) loop_->Cancel(*std::exchange(retry_, std::nullopt));
  }

  EventLoop* const loop_;
  const RandomSource source_;
  DeviceIdentity identity_;
  DeviceHost* host_ = nullptr;
  std::optional<DescriptorChain> held_;
  SplitQueue* held_queue_ = nullptr;
  bool returned_ = false;  // something, in this turn
  size_t given_ = 0;       // bytes, in this turn
  std::optional<EventLoop::TimerId> retry_;
};

}  // namespace

absl::StatusOr<OpenedDevice> OpenRng(const DeviceEntry&) { return OpenedDevice{}; }

std::unique_ptr<Device> NewRngDevice(EventLoop* loop, RandomSource source) {
  return std::make_unique<RngDevice>(loop, source);
}

// As DeviceType::create has it; clang-tidy 14 does not see that registry.cc takes the address.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
absl::StatusOr<std::unique_ptr<Device>> CreateRng(OpenedDevice,
                                                  const DeviceEnvironment& environment) {
  return NewRngDevice(environment.loop, FromKernel);
}

}  // namespace vmsg::backend
