// SPDX-License-Identifier: Apache-2.0
#include "backend/service/trace/trace.h"

#include <time.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backend/runtime/rate_limited_log.h"
#include "virtio-msg/capture.h"

namespace vmsg::backend {
namespace {

// At the end, what waits takes milliseconds unless the disk hangs.
constexpr std::chrono::seconds kEndPatience{2};

}  // namespace

// The writer thread holds it, too: it may be left behind.
struct Trace::Shared {
  struct Order {
    TraceSettings settings;
    absl::Status result;
    bool done = false;
    bool awaited = true;  // otherwise the log is told
  };

  std::atomic<bool> on = false;
  std::mutex mutex;
  std::condition_variable news;     // for the writer
  std::condition_variable answers;  // from the writer
  // Guarded by mutex:
  std::vector<std::byte> queue;  // whole packets
  uint64_t dropped = 0;
  std::deque<std::shared_ptr<Order>> orders;
  absl::AnyInvocable<void()> hold;
  bool started = false;
  bool stopping = false;
  bool ended = false;

  // The writer's own:
  std::optional<CaptureFile> file;
  uint64_t dropped_in_all = 0;
  RateLimitedLog log{"", /*burst=*/1};

  void Run() {
    std::unique_lock lock(mutex);
    while (true) {
      news.wait(lock, [this] { return stopping || !orders.empty() || !queue.empty(); });
      if (auto wait = std::exchange(hold, nullptr); wait != nullptr) {
        lock.unlock();
        wait();
        lock.lock();
      }
      // Messages first: they are from before the order.
      if (!queue.empty()) {
        std::vector<std::byte> packets = std::exchange(queue, {});
        const uint64_t left_out = std::exchange(dropped, 0);
        lock.unlock();
        Append(packets, left_out);
        lock.lock();
      } else if (!orders.empty()) {
        std::shared_ptr<Order> order = std::move(orders.front());
        orders.pop_front();
        lock.unlock();
        absl::Status result = Follow(order->settings);
        lock.lock();
        order->result = std::move(result);
        order->done = true;
        if (!order->awaited) {
          Log(order->result.ok() ? LogLevel::kInfo : LogLevel::kError,
              order->result.ok() ? absl::StrCat("trace: ", order->settings.path, " answers now")
                                 : order->result.message());
        }
        answers.notify_all();
      } else if (stopping) {
        ended = true;
        answers.notify_all();
        return;
      }
    }
  }

  absl::Status Follow(const TraceSettings& settings) {
    if (settings.path.empty()) {
      End("");
      return absl::OkStatus();
    }
    if (file.has_value() && file->path() == settings.path && file->InPlace()) {
      file->set_max_bytes(settings.max_bytes);
      return absl::OkStatus();
    }
    absl::StatusOr<CaptureFile> next = CaptureFile::Begin(settings);
    if (!next.ok()) return next.status();
    file = *std::move(next);
    dropped_in_all = 0;
    on = true;
    return absl::OkStatus();
  }

  void Append(std::span<const std::byte> packets, uint64_t left_out) {
    if (!file.has_value()) return;  // it has ended meanwhile
    if (absl::Status written = file->Append(packets); !written.ok()) {
      End(written.message());
      return;
    }
    dropped_in_all += left_out;
    if (left_out > 0) {
      log.Line(absl::Now(), LogLevel::kWarning,
               absl::StrCat("trace: ", file->path(), ": ", left_out,
                            " messages are not in it, because they came faster than it is "
                            "written; ",
                            dropped_in_all, " so far"));
    }
  }

  void End(absl::string_view why) {
    on = false;
    if (!file.has_value()) return;
    Log(why.empty() ? LogLevel::kInfo : LogLevel::kError,
        absl::StrCat(
            why.empty() ? absl::StrCat("trace: ", file->path()) : std::string(why),
            ": the trace ends here, with ", file->packets(), " messages",
            dropped_in_all == 0 ? "" : absl::StrCat("; ", dropped_in_all, " are not in it")));
    file.reset();
  }
};

Trace::Trace() : shared_(std::make_shared<Shared>()) {}

Trace::~Trace() {
  std::unique_lock lock(shared_->mutex);
  if (!shared_->started) return;
  shared_->on = false;
  shared_->stopping = true;
  shared_->news.notify_one();
  if (shared_->answers.wait_for(lock, kEndPatience, [this] { return shared_->ended; })) return;
  Log(LogLevel::kWarning, "trace: its disk hangs; what was not written is lost");
}

absl::Status Trace::Use(const TraceSettings& settings, absl::Duration patience) {
  std::unique_lock lock(shared_->mutex);
  if (settings.path.empty() && !shared_->started) return absl::OkStatus();
  if (!std::exchange(shared_->started, true)) {
    std::thread([shared = shared_] { shared->Run(); }).detach();
  }
  auto order = std::make_shared<Shared::Order>(Shared::Order{.settings = settings});
  shared_->orders.push_back(order);
  shared_->news.notify_one();
  if (shared_->answers.wait_for(lock, absl::ToChronoNanoseconds(patience),
                                [&] { return order->done; })) {
    return order->result;
  }
  order->awaited = false;
  return absl::DeadlineExceededError(
      absl::StrCat("trace: ", settings.path, ": its disk has not answered in ",
                   absl::FormatDuration(patience), "; the trace begins when it does"));
}

bool Trace::on() const { return shared_->on.load(std::memory_order_relaxed); }

void Trace::Write(uint16_t frontend, uint32_t bus, bool from_driver,
                  std::span<const std::byte> message) {
  if (!on()) return;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const auto header =
      wire::CapturePacketHeader({.time_ns = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 +
                                            static_cast<uint64_t>(now.tv_nsec),
                                 .direction = from_driver ? wire::CaptureDirection::kDriverToDevice
                                                          : wire::CaptureDirection::kDeviceToDriver,
                                 .frontend = frontend,
                                 .bus = bus,
                                 .message = message});
  bool first;
  {
    std::lock_guard lock(shared_->mutex);
    if (shared_->queue.size() + header.size() + message.size() > kMaxTraceBacklog) {
      ++shared_->dropped;
      return;
    }
    first = shared_->queue.empty();
    shared_->queue.insert(shared_->queue.end(), header.begin(), header.end());
    shared_->queue.insert(shared_->queue.end(), message.begin(), message.end());
  }
  if (first) shared_->news.notify_one();
}

void Trace::BeforeWriting(absl::AnyInvocable<void()> hold) {
  std::lock_guard lock(shared_->mutex);
  shared_->hold = std::move(hold);
}

}  // namespace vmsg::backend
