// SPDX-License-Identifier: Apache-2.0
#include "backend/session/session.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::backend {

absl::StatusOr<std::unique_ptr<Session>> Session::Start(Parts parts,
                                                        const SessionOptions& options) {
  auto session = std::unique_ptr<Session>(new Session(std::move(parts), options));
  absl::StatusOr<uint32_t> first =
      session->window_.Append(std::move(session->parts_.window), options.max_window_pages);
  if (!first.ok()) return first.status();
  if (AsyncFileIo* const disk = session->parts_.environment.io; disk != nullptr) {
    absl::StatusOr<std::unique_ptr<AsyncFileIo>> share =
        NewGuestFileIo(disk, session->parts_.loop, options.bounce);
    if (!share.ok()) return share.status();
    session->file_io_ = *std::move(share);
    session->parts_.environment.io = session->file_io_.get();
  }
  session->endpoint_ =
      std::make_unique<BusEndpoint>(BusEndpoint::Parts{.loop = *session->parts_.loop,
                                                       .doorbell = *session->parts_.port,
                                                       .window = session->window_,
                                                       .mapper = *session->parts_.mapper,
                                                       .events = *session},
                                    session->parts_.ring.memory(),
                                    BusOptions{.profile = &wire::Profile::V1(),
                                               .message_size = options.message_size,
                                               .suppression = options.suppression,
                                               .queue_resume = options.queue_resume,
                                               .max_window_pages = options.max_window_pages,
                                               .tap = session->parts_.tap.get()});
  session->parts_.port->SetHandler([raw = session.get()] { raw->endpoint_->OnEvent(); });
  return session;
}

Session::Session(Parts parts, const SessionOptions& options)
    : options_(options), parts_(std::move(parts)) {}

Session::~Session() {
  for (const auto& [number, timer] : leaving_) parts_.loop->Cancel(timer);
  // The endpoint before the window that it points at.
  endpoint_.reset();
}

absl::Status Session::AddDevice(OpenedDevice opened, bool announce) {
  const uint16_t number = opened.number;
  absl::StatusOr<std::unique_ptr<Device>> device =
      CreateDevice(std::move(opened), parts_.environment);
  if (!device.ok()) return device.status();
  return endpoint_->AddDevice(number, *std::move(device), announce);
}

void Session::RemoveDevice(uint16_t number, bool force, absl::Duration limit) {
  // A driver that is not there, or has reset the device already, has nothing to let go of.
  if (removing_.contains(number) || (leaving_.contains(number) && !force)) return;
  if (force || endpoint_->DeviceStatus(number) == 0 || !endpoint_->AskForRemoval(number).ok()) {
    Remove(number);
    return;
  }
  leaving_[number] = parts_.loop->RunAfter(limit, [this, number, limit] {
    Log(LogLevel::kWarning,
        absl::StrCat(options_.name, " device ", number, ": the driver did not let go of it in ",
                     absl::FormatDuration(limit), "; removed"));
    Remove(number);
  });
}

void Session::Remove(uint16_t number) {
  if (auto leaving = leaving_.find(number); leaving != leaving_.end()) {
    parts_.loop->Cancel(leaving->second);
    leaving_.erase(leaving);
  }
  // Draining already: it is reported when that ends.
  if (!removing_.insert(number).second) return;
  endpoint_->RemoveDevice(number, [this, number] {
    removing_.erase(number);
    parts_.listener->OnDeviceRemoved(number);
  });
}

void Session::OnDeviceReset(uint16_t number) {
  if (!leaving_.contains(number)) return;
  // Not from within the device's own turn.
  parts_.loop->Cancel(leaving_[number]);
  leaving_[number] =
      parts_.loop->RunAfter(absl::ZeroDuration(), [this, number] { Remove(number); });
}

void Session::OnBusBroken(const absl::Status& why) { parts_.listener->OnSessionBroken(why); }

void Session::OnProblem(int device, const absl::Status& what) {
  if (!parts_.log->Admit(parts_.loop->Now())) return;
  parts_.log->Write(LogLevel::kWarning,
                    device < 0 ? std::string(what.message())
                               : absl::StrCat("device ", device, ": ", what.message()));
}

void Session::Close(absl::AnyInvocable<void(SessionRemains)> done) {
  for (const auto& [number, timer] : leaving_) parts_.loop->Cancel(timer);
  leaving_.clear();
  endpoint_->Close([this, done = std::move(done)]() mutable {
    done({.ring = std::move(parts_.ring), .window = window_.TakeAll()});
  });
}

std::string Session::Describe() const {
  const BusCounters& counters = endpoint_->counters();
  return absl::StrCat(
      options_.name, ": devices ", endpoint_->device_count(), ", window pages ",
      window_.mapped_pages(), ", received ", counters.messages_received, ", sent ",
      counters.messages_sent, ", malformed ", counters.malformed, ", unknown device ",
      counters.unknown_device, ", problems ", counters.problems, ", wake-ups ", counters.wakeups,
      " (spurious ", counters.spurious_wakeups, "), notifications ", counters.notifications_sent,
      ", coalesced ", counters.events_coalesced, ", ring full ", counters.ring_full);
}

}  // namespace vmsg::backend
