// SPDX-License-Identifier: Apache-2.0
#include "backend/service/toolstack/store_thread.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "backend/devices/unique_fd.h"
#include "backend/runtime/rate_limited_log.h"

namespace vmsg::backend {
namespace {

// A turn takes milliseconds unless the disk hangs.
constexpr std::chrono::seconds kEndPatience{5};

}  // namespace

struct StoreThread::Shared {
  std::string name;
  std::unique_ptr<xenstore::Store> store;
  UniqueFd stop;
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;  // guarded by mutex
  bool ended = false;     // guarded by mutex

  bool Stopping() {
    std::lock_guard lock(mutex);
    return stopping;
  }

  void Run(Make make) {
    absl::StatusOr<Process> process = make(*store);
    absl::Status status = process.status();
    while (status.ok() && !Stopping()) {
      absl::StatusOr<bool> more = (*process)();
      if (!more.ok()) {
        status = more.status();
      } else if (!*more) {
        pollfd wait[2] = {{store->fd(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR) status = absl::ErrnoToStatus(errno, "poll");
      }
    }
    if (!status.ok() && !Stopping()) {
      const bool permitted = !absl::IsPermissionDenied(status);
      Log(permitted ? LogLevel::kError : LogLevel::kInfo,
          absl::StrCat(name, permitted ? " ends: " : ": not in this domain: ", status.message()));
    }
    process = absl::CancelledError();
    std::lock_guard lock(mutex);
    ended = true;
    changed.notify_all();
  }
};

absl::StatusOr<std::unique_ptr<StoreThread>> StoreThread::Start(
    const std::string& name, std::unique_ptr<xenstore::Store> store, Make make) {
  auto shared = std::make_shared<Shared>();
  shared->name = name;
  shared->store = std::move(store);
  shared->stop = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (shared->stop.get() < 0) return absl::ErrnoToStatus(errno, "eventfd");
  std::thread([shared, make = std::move(make)]() mutable {
    shared->Run(std::move(make));
  }).detach();
  return std::unique_ptr<StoreThread>(new StoreThread(std::move(shared)));
}

StoreThread::~StoreThread() {
  std::unique_lock lock(shared_->mutex);
  shared_->stopping = true;
  eventfd_write(shared_->stop.get(), 1);
  if (shared_->changed.wait_for(lock, kEndPatience, [this] { return shared_->ended; })) return;
  Log(LogLevel::kWarning, absl::StrCat(shared_->name, " hangs; it is left behind"));
}

}  // namespace vmsg::backend
