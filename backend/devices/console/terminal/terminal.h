// SPDX-License-Identifier: Apache-2.0
// The host's end of a console: where the guest's characters go and come from. Nothing blocks.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backend/devices/device.h"
#include "backend/runtime/event_loop.h"

namespace vmsg::backend {

struct WindowSize {
  uint16_t cols = 80;
  uint16_t rows = 24;
  friend bool operator==(const WindowSize&, const WindowSize&) = default;
};

// Told by a terminal, on the loop's thread.
class TerminalListener {
 public:
  virtual ~TerminalListener() = default;
  // Somebody attached or left.
  virtual void OnAttached(bool attached) = 0;
  // There is input; only after WantInput(true).
  virtual void OnInput() = 0;
  // There is room again; once after Write could not take everything.
  virtual void OnRoom() = 0;
  virtual void OnWindowSize(WindowSize size) = 0;
};

class Terminal {
 public:
  virtual ~Terminal() = default;
  virtual WindowSize window_size() const = 0;

  // Between Start and Stop the listener is told, and attached() is current.
  virtual void Start(TerminalListener* listener) = 0;
  virtual void Stop() = 0;
  virtual bool attached() const = 0;

  // Bytes taken, 0: no room now, OnRoom follows. Only while attached. -1: nobody is there any more.
  virtual ssize_t Write(absl::Span<const iovec> pieces) = 0;
  // Bytes read, 0: nothing there now, -1: nobody is there any more.
  virtual ssize_t Read(absl::Span<const iovec> pieces) = 0;
  virtual void WantInput(bool wanted) = 0;
};

// From what OpenConsole opened.
absl::StatusOr<std::unique_ptr<Terminal>> NewPtyTerminal(OpenedDevice opened, EventLoop* loop);
absl::StatusOr<std::unique_ptr<Terminal>> NewSocketTerminal(OpenedDevice opened, EventLoop* loop);

}  // namespace vmsg::backend
