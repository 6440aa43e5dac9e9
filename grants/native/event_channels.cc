// SPDX-License-Identifier: Apache-2.0
#include "grants/event_channels.h"

#include <poll.h>

#include <cerrno>
#include <memory>

extern "C" {  // the header does not say so itself
#include <xenevtchn.h>
}

#include "absl/strings/str_cat.h"
#include "grants/native/driver_errors.h"
#include "grants/native/native_devices.h"

namespace vmsg::grants {
namespace {

struct CloseEventChannels {
  void operator()(xenevtchn_handle* handle) const { xenevtchn_close(handle); }
};

class NativeEventChannels final : public EventChannels {
 public:
  explicit NativeEventChannels(xenevtchn_handle* handle) : handle_(handle) {}

  int fd() const override { return xenevtchn_fd(handle_.get()); }

  absl::StatusOr<EventPort> AllocateUnbound(DomainId remote) override {
    if (absl::Status checked = CheckDomain(remote); !checked.ok()) return checked;
    const xenevtchn_port_or_error_t port = xenevtchn_bind_unbound_port(handle_.get(), remote);
    if (port < 0) {
      const int error = errno;
      return EventError(error, absl::StrCat("allocate an event channel for domain ", remote));
    }
    return static_cast<EventPort>(port);
  }

  absl::StatusOr<EventPort> BindInterdomain(DomainId remote, EventPort remote_port) override {
    if (absl::Status checked = CheckDomain(remote); !checked.ok()) return checked;
    const xenevtchn_port_or_error_t port =
        xenevtchn_bind_interdomain(handle_.get(), remote, remote_port);
    if (port < 0) {
      const int error = errno;
      return EventError(error,
                        absl::StrCat("bind event channel ", remote_port, " of domain ", remote));
    }
    return static_cast<EventPort>(port);
  }

  absl::Status Notify(EventPort port) override {
    return Checked(xenevtchn_notify(handle_.get(), port), "notify", port);
  }

  absl::StatusOr<std::optional<EventPort>> NextPending() override {
    // The library's read may block although the descriptor is nonblocking (xenevtchn.h), so poll.
    pollfd ready{.fd = fd(), .events = POLLIN, .revents = 0};
    const int count = poll(&ready, 1, 0);
    if (count == 0 || (count < 0 && errno == EINTR)) return std::nullopt;
    if (count < 0) {
      const int error = errno;
      return EventError(error, "poll /dev/xen/evtchn");
    }
    const xenevtchn_port_or_error_t port = xenevtchn_pending(handle_.get());
    if (port >= 0) return static_cast<EventPort>(port);
    const int error = errno;
    if (error == EAGAIN || error == EINTR) return std::nullopt;
    if (error == EFBIG) {
      return absl::DataLossError(
          "read /dev/xen/evtchn: more events than the driver keeps; events were lost, open the "
          "event channels anew");
    }
    return EventError(error, "read /dev/xen/evtchn");
  }

  absl::Status Unmask(EventPort port) override {
    return Checked(xenevtchn_unmask(handle_.get(), port), "unmask", port);
  }

  absl::Status Unbind(EventPort port) override {
    return Checked(xenevtchn_unbind(handle_.get(), port), "unbind", port);
  }

 private:
  static absl::Status Checked(int result, absl::string_view what, EventPort port) {
    if (result >= 0) return absl::OkStatus();
    const int error = errno;
    return EventError(error, absl::StrCat(what, " event channel ", port));
  }

  const std::unique_ptr<xenevtchn_handle, CloseEventChannels> handle_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EventChannels>> OpenNativeEventChannels() {
  xenevtchn_handle* handle = xenevtchn_open(SilentXenLogger(), 0);
  if (handle == nullptr) return OpenError(errno, "/dev/xen/evtchn", "xen_evtchn");
  return std::make_unique<NativeEventChannels>(handle);
}

}  // namespace vmsg::grants
