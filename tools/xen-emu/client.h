// SPDX-License-Identifier: Apache-2.0
// xen-emu's end of one connection: frames in, replies out, nothing blocks.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "grants/emulated/connection.h"
#include "grants/emulated/protocol.h"
#include "tools/xen-emu/hypervisor.h"

namespace vmsg::emu {

// Memory is bounded by one frame in and one reply out: while a reply waits to be taken, nothing is
// read.
class Client {
 public:
  Client(OwnedFd socket, std::shared_ptr<Domain> domain)
      : socket_(std::move(socket)), handle(std::move(domain)) {}

  int fd() const { return socket_.get(); }

  enum class Input { kOpen, kClosed, kMalformed };
  // Reads what has come, up to a frame's size, or to the end of what a gone peer sent. kMalformed:
  // the size of a frame is none.
  Input Read(bool until_end);

  struct Frame {
    Operation operation;
    std::span<const std::byte> body;  // valid until Pop
  };
  // The first complete frame; nullopt when there is none, or when the last reply still waits.
  std::optional<Frame> Front() const;
  void Pop();

  // Sends or keeps a reply; false when the peer is gone.
  bool Reply(Operation operation, const absl::StatusOr<Answer>& answer);
  // Sends what was kept.
  bool Flush();
  bool waits_for_room() const { return !out_.empty(); }

 private:
  bool SizeIsValid() const;
  bool Send(std::span<const std::byte> bytes, std::span<const int> fds, size_t* sent);

  OwnedFd socket_;
  std::vector<std::byte> in_;
  size_t in_start_ = 0;
  std::vector<std::byte> out_;
  size_t out_start_ = 0;

 public:
  OpenHandle handle;
};

}  // namespace vmsg::emu
