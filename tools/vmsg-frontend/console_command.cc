// SPDX-License-Identifier: Apache-2.0
// vmsg-frontend console
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "frontend-model/drivers/console_driver.h"
#include "tools/vmsg-frontend/commands.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::frontend_tool {
namespace {

using frontend::After;
using frontend::ConsoleDriver;

absl::Status Scripted(ConsoleDriver& console, const Arguments& arguments) {
  absl::StatusOr<uint64_t> timeout = arguments.Number("timeout", 10, 0, 3600);
  if (!timeout.ok()) return timeout.status();
  const frontend::Deadline deadline = After(std::chrono::seconds(*timeout));
  if (arguments.Has("send")) {
    absl::Status status = console.Send(arguments.Text("send", ""), deadline);
    if (!status.ok()) return status;
  }
  const std::string expected = arguments.Text("expect", "");
  std::string received;
  while (received.find(expected) == std::string::npos) {
    absl::Status status = console.WaitReceived(deadline);
    if (absl::IsDeadlineExceeded(status)) {
      return absl::DeadlineExceededError(
          absl::StrCat("expected \"", expected, "\" from the console; ", received.size(),
                       " bytes came: \"", absl::string_view(received).substr(0, 200), "\""));
    }
    if (!status.ok()) return status;
    received += console.TakeReceived();
    // Keep no more than what a match can begin in.
    constexpr size_t kKept = 1 << 20;
    if (received.size() > kKept) received.erase(0, received.size() - kKept);
  }
  return WriteAll(STDOUT_FILENO, received.data(), received.size());
}

absl::Status Interactive(ConsoleDriver& console) {
  frontend::FrontendBus& bus = console.client().bus();
  std::string unsent;
  bool ended = false;
  const auto watch_input = [&] {
    bus.AddFd(STDIN_FILENO, [&] {
      char bytes[4096];
      const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof(bytes));
      if (count > 0) unsent.append(bytes, static_cast<size_t>(count));
      ended = count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN);
      // No more input until this has gone.
      bus.RemoveFd(STDIN_FILENO);
      return absl::OkStatus();
    });
  };
  watch_input();
  while (!ended || !unsent.empty()) {
    absl::Status status = bus.WaitUntil(
        [&] {
          return !unsent.empty() || ended || console.has_received() || console.size_changed() ||
                 console.client().removed() || console.client().removal_requested() ||
                 !console.failure().ok();
        },
        frontend::Deadline::max());
    if (!status.ok()) return status;
    if (!console.failure().ok()) return console.failure();
    if (console.client().removed() || console.client().removal_requested()) {
      return absl::UnavailableError("the console is being removed");
    }
    if (console.size_changed()) {
      absl::StatusOr<frontend::ConsoleSize> size = console.ReadSize();
      if (size.ok()) std::fprintf(stderr, "[%ux%u]\n", size->columns, size->rows);
    }
    const std::string received = console.TakeReceived();
    if (absl::Status written = WriteAll(STDOUT_FILENO, received.data(), received.size());
        !written.ok()) {
      return written;
    }
    if (unsent.empty()) continue;
    if (absl::Status sent = console.Send(unsent, frontend::Deadline::max()); !sent.ok()) {
      return sent;
    }
    unsent.clear();
    if (!ended) watch_input();
  }
  bus.RemoveFd(STDIN_FILENO);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunConsole(frontend::BusConnection& connection, const Arguments& arguments) {
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> device =
      OpenDevice(connection, arguments, wire::kDeviceIdConsole, "console");
  if (!device.ok()) return device.status();
  absl::StatusOr<std::unique_ptr<ConsoleDriver>> console =
      ConsoleDriver::Create(*std::move(device));
  if (!console.ok()) return console.status();
  if (arguments.Has("send") || arguments.Has("expect")) return Scripted(**console, arguments);
  return Interactive(**console);
}

}  // namespace vmsg::frontend_tool
