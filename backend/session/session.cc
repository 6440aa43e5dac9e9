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
  ForgetLeaving();
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

void Session::RemoveDevice(uint16_t number, bool force) {
  // A driver that is not there, or has reset the device already, has nothing to let go of.
  if (removing_.contains(number) || (leaving_.contains(number) && !force)) return;
  if (force || endpoint_->DeviceStatus(number) == 0 || !endpoint_->AskForRemoval(number).ok()) {
    Remove(number);
    return;
  }
  leaving_[number] = 0;
  parts_.listener->OnRemoval(number, RemovalStage::kAsked);
}

void Session::Remove(uint16_t number) {
  if (auto leaving = leaving_.find(number); leaving != leaving_.end()) {
    if (leaving->second != 0) parts_.loop->Cancel(leaving->second);
    leaving_.erase(leaving);
  }
  // Draining already: it is reported when that ends.
  if (!removing_.insert(number).second) return;
  parts_.listener->OnRemoval(number, RemovalStage::kDraining);
  endpoint_->RemoveDevice(number, [this, number] {
    removing_.erase(number);
    parts_.listener->OnRemoval(number, RemovalStage::kRemoved);
  });
}

void Session::OnDeviceReset(uint16_t number) {
  auto leaving = leaving_.find(number);
  if (leaving == leaving_.end() || leaving->second != 0) return;
  // Not from within the device's own turn.
  leaving->second = parts_.loop->RunAfter(absl::ZeroDuration(), [this, number] { Remove(number); });
}

void Session::ForgetLeaving() {
  for (const auto& [number, timer] : leaving_) {
    if (timer != 0) parts_.loop->Cancel(timer);
  }
  leaving_.clear();
}

void Session::OnBusBroken(const absl::Status& why) { parts_.listener->OnSessionBroken(why); }

void Session::OnProblem(int device, const absl::Status& what) {
  if (!parts_.log->Admit(LogLevel::kWarning, parts_.loop->Now())) return;
  parts_.log->Write(LogLevel::kWarning,
                    device < 0 ? std::string(what.message())
                               : absl::StrCat("device ", device, ": ", what.message()));
}

void Session::Close(absl::AnyInvocable<void(SessionRemains)> done) {
  ForgetLeaving();
  endpoint_->Close([this, done = std::move(done)]() mutable {
    done({.ring = std::move(parts_.ring), .window = window_.TakeAll()});
  });
}

std::string Session::Describe() const {
  const BusCounters& counters = endpoint_->counters();
  std::string text = absl::StrCat(
      options_.name, ": devices ", endpoint_->device_count(), ", window pages ",
      window_.mapped_pages(), ", received ", counters.messages_received, ", sent ",
      counters.messages_sent, ", malformed ", counters.malformed, ", unknown device ",
      counters.unknown_device, ", problems ", counters.problems, ", wake-ups ", counters.wakeups,
      " (spurious ", counters.spurious_wakeups, "), notifications ", counters.notifications_sent,
      ", coalesced ", counters.events_coalesced, ", ring full ", counters.ring_full);
  // Those that have counted anything: a bus may have many devices.
  endpoint_->VisitDevices([&text](uint16_t number, const Device& device) {
    const char* before = "";
    device.VisitCounters([&](absl::string_view name, uint64_t value) {
      if (value == 0) return;
      if (*before == '\0') absl::StrAppend(&text, "; device ", number, ":");
      absl::StrAppend(&text, before, " ", name, " ", value);
      before = ",";
    });
  });
  return text;
}

}  // namespace vmsg::backend
