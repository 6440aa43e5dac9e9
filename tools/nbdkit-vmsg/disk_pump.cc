// SPDX-License-Identifier: Apache-2.0
#include "tools/nbdkit-vmsg/disk_pump.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::nbd {
namespace {

using frontend::After;
using frontend::BlkDriver;
using frontend::DeviceClient;

constexpr uint32_t kMostBufferBytes = 256 * 1024;
constexpr auto kPatience = std::chrono::seconds(60);
constexpr auto kQuiesceTime = std::chrono::seconds(4);

absl::StatusOr<std::unique_ptr<DeviceClient>> FindDisk(frontend::BusConnection& connection,
                                                       std::optional<uint16_t> device) {
  if (device.has_value()) {
    return DeviceClient::Probe(connection.bus(), connection.memory(), *device);
  }
  absl::StatusOr<std::vector<uint16_t>> numbers = connection.bus().ListDevices(After(kPatience));
  if (!numbers.ok()) return numbers.status();
  for (const uint16_t number : *numbers) {
    absl::StatusOr<std::unique_ptr<DeviceClient>> client =
        DeviceClient::Probe(connection.bus(), connection.memory(), number);
    if (client.ok() && (*client)->info().device_id == wire::kDeviceIdBlock) return client;
  }
  return absl::NotFoundError("the bus has no block device");
}

}  // namespace

class DiskPump::Completions final : public frontend::BlkCompletion {
 public:
  explicit Completions(DiskPump* pump) : pump_(pump) {}
  void OnBlkDone(uint64_t tag, const absl::Status& status) override {
    pump_->Finish(pump_->in_flight_[tag], status);
  }

 private:
  DiskPump* pump_;
};

DiskPump::DiskPump(const PumpOptions& options) : options_(options) {}

absl::StatusOr<std::unique_ptr<DiskPump>> DiskPump::Start(const PumpOptions& options) {
  std::unique_ptr<DiskPump> pump(new DiskPump(options));
  if (absl::Status status = pump->Open(); !status.ok()) return status;
  pump->thread_ = std::thread([raw = pump.get()] { raw->Loop(); });
  return pump;
}

absl::Status DiskPump::Open() {
  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform(options_.xen);
  if (!platform.ok()) return platform.status();
  platform_ = *std::move(platform);
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> connection =
      frontend::BusConnection::Open(*platform_, options_.connect);
  if (!connection.ok()) return connection.status();
  connection_ = *std::move(connection);
  absl::StatusOr<std::unique_ptr<DeviceClient>> client = FindDisk(*connection_, options_.device);
  if (!client.ok()) return client.status();
  frontend::BlkOptions blk;
  blk.depth = kMaxRequests;
  absl::StatusOr<std::unique_ptr<BlkDriver>> disk = BlkDriver::Create(*std::move(client), blk);
  if (!disk.ok()) return disk.status();
  disk_ = *std::move(disk);
  limits_ = disk_->limits();
  capacity_ = limits_.capacity;
  completions_ = std::make_unique<Completions>(this);

  // A quarter of the window stays for the queue's own memory.
  const uint64_t window = uint64_t{options_.connect.pages} * grants::kPageSize;
  const uint64_t share = window / 4 * 3 / kMaxRequests;
  buffer_size_ =
      static_cast<uint32_t>(std::min<uint64_t>({share, kMostBufferBytes, limits_.max_request})) &
      ~4095u;
  if (buffer_size_ == 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a window of ", options_.connect.pages, " pages is too small: pages=128 is ", "enough"));
  }
  for (uint32_t i = 0; i < kMaxRequests; ++i) {
    absl::StatusOr<frontend::GuestBlock> block = connection_->memory().Allocate(buffer_size_, 4096);
    if (!block.ok()) return block.status();
    buffers_.push_back(*std::move(block));
  }
  absl::MutexLock lock(&mutex_);
  for (uint32_t i = 0; i < kMaxRequests; ++i) free_buffers_.push_back(i);
  wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) return absl::ErrnoToStatus(errno, "eventfd");
  return absl::OkStatus();
}

void DiskPump::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  ::eventfd_write(wake_fd_, 1);
}

bool DiskPump::dead() const {
  absl::MutexLock lock(&mutex_);
  return dead_;
}

DiskPump::~DiskPump() {
  if (thread_.joinable()) {
    Stop();
    thread_.join();
  }
  disk_.reset();
  buffers_.clear();
  connection_.reset();
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

void DiskPump::Loop() {
  frontend::FrontendBus& bus = connection_->bus();
  bus.AddFd(wake_fd_, [this] {
    eventfd_t ignored;
    ::eventfd_read(wake_fd_, &ignored);
    absl::MutexLock lock(&mutex_);
    // There is nobody to let go of the disk politely.
    const bool give_up = stop_ && connection_->bus().recovering();
    return give_up ? absl::CancelledError("the disk is being closed") : absl::OkStatus();
  });
  absl::Status status = bus.WaitUntil(
      [this] {
        SubmitQueued();
        capacity_.store(disk_->limits().capacity, std::memory_order_relaxed);
        absl::MutexLock lock(&mutex_);
        return stop_ || !disk_->failure().ok() || disk_->client().removal_requested() ||
               disk_->client().removed();
      },
      frontend::Deadline::max());
  bus.RemoveFd(wake_fd_);
  if (status.ok()) status = disk_->failure();
  if (status.ok() && (disk_->client().removal_requested() || disk_->client().removed())) {
    // What is in flight ends; the reset tells the administrator that we are done with the disk.
    disk_->Quiesce(After(kQuiesceTime)).IgnoreError();
    status = absl::UnavailableError("the disk was removed");
  }
  if (status.ok()) status = absl::CancelledError("the disk is being closed");
  disk_->Abandon(status);  // nothing would end them after a failure of the bus
  absl::MutexLock lock(&mutex_);
  dead_ = true;
  death_ = status;
  // Nobody will complete them any more.
  for (Job* job : queued_) {
    job->result = status;
    job->done = true;
  }
  queued_.clear();
}

void DiskPump::SubmitQueued() {
  taken_.clear();
  {
    absl::MutexLock lock(&mutex_);
    taken_.swap(queued_);
  }
  for (Job* job : taken_) {
    const uint64_t tag = job->buffer;
    in_flight_[tag] = job;
    absl::Status status;
    switch (job->kind) {
      case Kind::kRead:
        status = disk_->SubmitRead(job->offset, job->address, job->size, completions_.get(), tag);
        break;
      case Kind::kWrite:
        status = disk_->SubmitWrite(job->offset, job->address, job->size, completions_.get(), tag);
        break;
      case Kind::kFlush:
        status = disk_->SubmitFlush(completions_.get(), tag);
        break;
    }
    if (!status.ok()) Finish(job, status);
  }
}

void DiskPump::Finish(Job* job, absl::Status result) {
  absl::MutexLock lock(&mutex_);
  job->result = std::move(result);
  job->done = true;
}

absl::Status DiskPump::RunJob(Job& job) {
  {
    absl::MutexLock lock(&mutex_);
    if (dead_) return death_;
    queued_.push_back(&job);
  }
  ::eventfd_write(wake_fd_, 1);
  absl::MutexLock lock(&mutex_, absl::Condition(&job.done));
  return job.result;
}

uint32_t DiskPump::TakeBuffer() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](std::vector<uint32_t>* buffers) { return !buffers->empty(); }, &free_buffers_));
  const uint32_t index = free_buffers_.back();
  free_buffers_.pop_back();
  return index;
}

void DiskPump::GiveBuffer(uint32_t index) {
  absl::MutexLock lock(&mutex_);
  free_buffers_.push_back(index);
}

absl::Status DiskPump::Read(uint64_t offset, std::span<std::byte> out) {
  const uint32_t index = TakeBuffer();
  absl::Status status;
  while (status.ok() && !out.empty()) {
    const auto piece = static_cast<uint32_t>(std::min<size_t>(out.size(), buffer_size_));
    Job job = {.kind = Kind::kRead,
               .buffer = index,
               .offset = offset,
               .address = buffers_[index].address(),
               .size = piece};
    status = RunJob(job);
    if (status.ok()) std::memcpy(out.data(), buffers_[index].bytes().data(), piece);
    out = out.subspan(piece);
    offset += piece;
  }
  GiveBuffer(index);
  return status;
}

absl::Status DiskPump::Write(uint64_t offset, std::span<const std::byte> data) {
  const uint32_t index = TakeBuffer();
  absl::Status status;
  while (status.ok() && !data.empty()) {
    const auto piece = static_cast<uint32_t>(std::min<size_t>(data.size(), buffer_size_));
    std::memcpy(buffers_[index].bytes().data(), data.data(), piece);
    Job job = {.kind = Kind::kWrite,
               .buffer = index,
               .offset = offset,
               .address = buffers_[index].address(),
               .size = piece};
    status = RunJob(job);
    data = data.subspan(piece);
    offset += piece;
  }
  GiveBuffer(index);
  return status;
}

absl::Status DiskPump::Flush() {
  if (!limits_.flush) return absl::OkStatus();
  const uint32_t index = TakeBuffer();  // bounds the requests in flight
  Job job = {.kind = Kind::kFlush, .buffer = index, .offset = 0, .address = 0, .size = 0};
  absl::Status status = RunJob(job);
  GiveBuffer(index);
  return status;
}

}  // namespace vmsg::nbd
