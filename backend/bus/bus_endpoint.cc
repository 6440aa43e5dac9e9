// SPDX-License-Identifier: Apache-2.0
// The endpoint's turn: records in, devices, events out. Bus messages are in bus_messages.cc.
#include "backend/bus/bus_endpoint.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::backend {

BusEndpoint::BusEndpoint(const Parts& parts, const RingMemory& ring, const BusOptions& options)
    : parts_(parts),
      consumer_(&ring.interface->out, ring.out, options.suppression, options.message_size),
      outbox_(wire::RingProducer(&ring.interface->in, ring.in, options.suppression),
              *options.profile, options.message_size, options.tap, counters_),
      window_requests_({.outbox = outbox_,
                        .window = parts.window,
                        .mapper = parts.mapper,
                        .max_pages = options.max_window_pages,
                        .in_use =
                            [this](uint64_t first, uint64_t bytes) {
                              for (const auto& [number, channel] : channels_) {
                                if (channel->transport().QueueAreasIn(first, bytes)) return true;
                              }
                              return false;
                            },
                        .want_turn = [this] { Wake(); },
                        .problem =
                            [this](const absl::Status& what) {
                              ++counters_.problems;
                              parts_.events.OnProblem(-1, what);
                            }}),
      tap_(options.tap),
      queue_resume_(options.queue_resume) {
  parts_.loop.AddPoller(this);
  Wake();
}

BusEndpoint::~BusEndpoint() {
  if (unmask_timer_ != 0) parts_.loop.Cancel(unmask_timer_);
  parts_.loop.RemovePoller(this);
}

absl::Status BusEndpoint::AddDevice(uint16_t number, std::unique_ptr<Device> device,
                                    bool announce) {
  if (channels_.contains(number)) {
    return absl::AlreadyExistsError(absl::StrCat("there is a device ", number, " already"));
  }
  if (channels_.size() >= kMaxDevicesPerBus) {
    return absl::ResourceExhaustedError(
        absl::StrCat("device ", number, " refused: a bus has at most ", kMaxDevicesPerBus));
  }
  auto channel = std::make_unique<DeviceChannel>(number, static_cast<ChannelOwner&>(*this));
  absl::Status status = channel->Attach(std::move(device), parts_.window, queue_resume_);
  if (!status.ok()) return status;
  channels_.emplace(number, std::move(channel));
  if (announce) QueueDeviceEvent(number, wire::kDeviceReady);
  return absl::OkStatus();
}

absl::Status BusEndpoint::AskForRemoval(uint16_t number) {
  auto channel = channels_.find(number);
  if (channel == channels_.end() || channel->second->leaving()) {
    return absl::NotFoundError(absl::StrCat("there is no device ", number));
  }
  QueueDeviceEvent(number, wire::kDeviceRemovalRequested);
  return absl::OkStatus();
}

void BusEndpoint::RemoveDevice(uint16_t number, absl::AnyInvocable<void()> done) {
  auto channel = channels_.find(number);
  if (channel == channels_.end()) {
    done();
    return;
  }
  if (!channel->second->leaving()) ++leaving_;
  channel->second->Remove(std::move(done));
}

void BusEndpoint::VisitDevices(
    absl::FunctionRef<void(uint16_t number, const Device& device)> visit) const {
  for (const auto& [number, channel] : channels_) visit(number, channel->transport().device());
}

uint32_t BusEndpoint::DeviceStatus(uint16_t number) const {
  auto channel = channels_.find(number);
  return channel == channels_.end() ? 0 : channel->second->transport().status();
}

void BusEndpoint::Wake() {
  if (awake_) return;
  awake_ = true;
  parts_.loop.Activate(this);
}

void BusEndpoint::OnEvent() {
  port_masked_ = true;
  ++counters_.wakeups;
  useful_ = false;
  Wake();
}

bool BusEndpoint::Poll() {
  bool worked = false;
  if (open()) worked |= TakeRecords();
  worked |= TurnChannels();
  worked |= window_requests_.Turn();
  // Before the events, of which REMOVED is one.
  DestroyGone();
  if (open()) {
    if (!FlushEvents()) ++counters_.ring_full;
    Notify(outbox_.Publish());
    worked |= !CheckRing();
  }
  if (worked) useful_ = true;
  if (closing_) FinishClosing();
  return worked;
}

bool BusEndpoint::TakeRecords() {
  bool worked = false;
  no_credit_ = false;
  for (uint32_t taken = 0; taken < kRecordsPerTurn; ++taken) {
    if (held_ == 0) {
      // Whatever comes next may be a request.
      if (!outbox_.HasCredit()) {
        no_credit_ = true;
        break;
      }
      absl::StatusOr<std::optional<size_t>> size = consumer_.Pop(record_);
      if (!size.ok()) {
        Break(size.status());
        return true;
      }
      if (!size->has_value()) break;
      held_ = **size;
      ++counters_.messages_received;
      if (tap_ != nullptr) tap_->OnMessage(/*from_driver=*/true, std::span(record_).first(held_));
      worked = true;
    }
    if (!TakeRecord()) break;
    held_ = 0;
  }
  // What is popped is in private memory: the frontend may have its room back at once.
  Notify(consumer_.Release());
  return worked;
}

bool BusEndpoint::TakeRecord() {
  const std::span<const std::byte> record = std::span(record_).first(held_);
  absl::StatusOr<wire::Message> message =
      wire::Decode(outbox_.profile(), record, outbox_.message_size());
  if (!message.ok()) {
    Malformed(-1, message.status());
    return true;
  }
  if (message->spec->message_class == wire::MessageClass::kBus) return TakeBusMessage(*message);
  if (!wire::MaySend(*message, wire::Sender::kDriver)) {
    Malformed(message->envelope.dev_num,
              absl::InvalidArgumentError(absl::StrCat(
                  absl::string_view(message->spec->name.data(), message->spec->name.size()),
                  message->response ? " response" : "", " is not the driver's to send")));
    return true;
  }
  const bool request = message->spec->kind == wire::Kind::kRequest;
  auto channel = channels_.find(message->envelope.dev_num);
  if (channel == channels_.end()) {
    ++counters_.unknown_device;
    if (request) {
      outbox_.OweResponse();
      AnswerWithZeros(outbox_, *message);
    }
    return true;
  }
  if (!request) {
    channel->second->TakeEvent(*message);
    return true;
  }
  if (!channel->second->CanTake()) return false;
  outbox_.OweResponse();
  channel->second->TakeRequest(*message, record);
  return true;
}

bool BusEndpoint::TurnChannels() {
  bool worked = false;
  // Channels may ask for a turn while others have theirs; those come in the next one.
  const size_t count = turn_list_.size();
  for (size_t i = 0; i < count; ++i) worked |= turn_list_[i]->Turn(kChainsPerQueueTurn);
  return worked;
}

bool BusEndpoint::FlushEvents() {
  bool all = FlushDeviceEvents();
  for (DeviceChannel* channel : turn_list_) all &= channel->Flush();
  std::erase_if(turn_list_, [](DeviceChannel* channel) {
    channel->in_turn_list = !channel->idle();
    return !channel->in_turn_list;
  });
  return all;
}

void BusEndpoint::Notify(bool wanted) {
  if (!wanted) return;
  ++counters_.notifications_sent;
  parts_.doorbell.Notify();
}

bool BusEndpoint::PrepareToSleep() {
  bool more = false;
  bool blocked = false;
  if (open()) {
    for (DeviceChannel* channel : turn_list_) more |= channel->ArmQueues();
    const bool flushed = FlushEvents();
    Notify(outbox_.Publish());
    // With no room to answer, records are left where they are until the frontend has made some.
    blocked = !outbox_.HasCredit();
    outbox_.WantSpace(blocked || !flushed);
    const size_t free = outbox_.Free();
    // It may have made room before it saw that we want to know.
    if (blocked || !flushed) more |= outbox_.HasCredit();
    // Without suppression its events also say that it has read on.
    if (free != free_at_sleep_) useful_ = true;
    free_at_sleep_ = free;
    absl::StatusOr<bool> arrived = consumer_.Arm();
    if (!arrived.ok()) {
      Break(arrived.status());
      return true;
    }
    more |= *arrived && !blocked && held_ == 0;
    if (!CheckRing()) return true;
  }
  for (DeviceChannel* channel : turn_list_) more |= channel->wants_turn();
  if (more) return true;
  awake_ = false;
  RearmPort();
  return false;
}

bool BusEndpoint::AwaitsStorage() const {
  return std::any_of(channels_.begin(), channels_.end(), [](const auto& entry) {
    return entry.second->transport().device().AwaitsStorage();
  });
}

void BusEndpoint::RearmPort() {
  if (!port_masked_ || !open()) return;
  if (useful_) {
    spurious_in_row_ = 0;
  } else {
    ++counters_.spurious_wakeups;
    ++spurious_in_row_;
  }
  if (spurious_in_row_ <= kSpuriousWakeups) {
    port_masked_ = false;
    parts_.doorbell.Unmask();
    return;
  }
  if (unmask_timer_ != 0) return;
  unmask_timer_ = parts_.loop.RunAfter(kSpuriousDelay, [this] {
    unmask_timer_ = 0;
    if (!port_masked_ || !open()) return;
    port_masked_ = false;
    parts_.doorbell.Unmask();
  });
}

void BusEndpoint::ChannelNeedsTurn(DeviceChannel& channel) {
  if (!channel.in_turn_list) {
    channel.in_turn_list = true;
    turn_list_.push_back(&channel);
  }
  Wake();
}

void BusEndpoint::ChannelProblem(uint16_t number, const absl::Status& what) {
  ++counters_.problems;
  parts_.events.OnProblem(number, what);
}

void BusEndpoint::ChannelMalformed(uint16_t number, const absl::Status& what) {
  Malformed(number, what);
}

void BusEndpoint::Break(const absl::Status& why) {
  outbox_.GiveUp(why);
  if (broken_) return;
  broken_ = true;
  parts_.events.OnBusBroken(why);
}

bool BusEndpoint::CheckRing() {
  if (outbox_.status().ok()) return true;
  Break(outbox_.status());
  return false;
}

void BusEndpoint::Close(absl::AnyInvocable<void()> done) {
  closing_ = true;
  closed_ = std::move(done);
  outbox_.GiveUp(absl::CancelledError("the bus closes"));
  held_ = 0;
  device_events_.clear();
  window_requests_.Close();
  for (auto& [number, channel] : channels_) {
    if (!channel->leaving()) ++leaving_;
    channel->Remove(nullptr);
  }
  Wake();
}

void BusEndpoint::DestroyGone() {
  if (leaving_ == 0) return;
  std::vector<absl::AnyInvocable<void()>> done;
  for (auto entry = channels_.begin(); entry != channels_.end();) {
    if (!entry->second->gone()) {
      ++entry;
      continue;
    }
    std::erase(turn_list_, entry->second.get());
    QueueDeviceEvent(entry->first, wire::kDeviceRemoved);
    for (absl::AnyInvocable<void()>& task : entry->second->TakeDone()) {
      done.push_back(std::move(task));
    }
    entry = channels_.erase(entry);
    --leaving_;
  }
  // They may add and remove devices.
  for (auto& task : done) task();
}

void BusEndpoint::FinishClosing() {
  if (closed_ == nullptr || !channels_.empty() || !window_requests_.idle()) return;
  std::exchange(closed_, nullptr)();
}

}  // namespace vmsg::backend
