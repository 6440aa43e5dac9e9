// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/client.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace vmsg::emu {
namespace {

// Most requests fit; a longer frame is read into memory of its own size.
constexpr size_t kReadSize = 4096;
constexpr size_t kLargestRead = size_t{128} * 1024;

}  // namespace

Client::Input Client::Read(bool until_end) {
  if (in_start_ > 0) {
    in_.erase(in_.begin(), in_.begin() + static_cast<ptrdiff_t>(in_start_));
    in_start_ = 0;
  }
  for (;;) {
    const size_t had = in_.size();
    size_t wanted = kReadSize;
    if (had >= sizeof(FrameHeader)) {
      if (!SizeIsValid()) return Input::kMalformed;
      FrameHeader header{};
      std::memcpy(&header, in_.data(), sizeof(header));
      if (header.size > had) wanted = std::min<size_t>(header.size - had, kLargestRead);
    }
    if (had + wanted > kMaxFrameSize + kReadSize) return Input::kOpen;  // served first, then read
    in_.resize(had + wanted);
    const ssize_t got = recv(fd(), in_.data() + had, wanted, MSG_DONTWAIT);
    in_.resize(had + std::max<ssize_t>(got, 0));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN ? Input::kOpen : Input::kClosed;
    if (got == 0) return Input::kClosed;
    if (in_.size() >= sizeof(FrameHeader) && !SizeIsValid()) return Input::kMalformed;
    if (Front().has_value() && !until_end) return Input::kOpen;
  }
}

bool Client::SizeIsValid() const {
  FrameHeader header{};
  std::memcpy(&header, in_.data() + in_start_, sizeof(header));
  return header.size >= sizeof(header) && header.size <= kMaxFrameSize;
}

std::optional<Client::Frame> Client::Front() const {
  if (in_.size() - in_start_ < sizeof(FrameHeader) || !out_.empty()) return std::nullopt;
  FrameHeader header{};
  std::memcpy(&header, in_.data() + in_start_, sizeof(header));
  if (!SizeIsValid() || header.size > in_.size() - in_start_) return std::nullopt;
  return Frame{static_cast<Operation>(header.operation),
               std::span(in_).subspan(in_start_ + sizeof(header), header.size - sizeof(header))};
}

void Client::Pop() {
  FrameHeader header{};
  std::memcpy(&header, in_.data() + in_start_, sizeof(header));
  in_start_ += header.size;
  if (in_start_ == in_.size()) {
    in_start_ = 0;
    in_.clear();
    // Most handles are idle, and there may be thousands.
    if (in_.capacity() > kReadSize) in_.shrink_to_fit();
  }
}

bool Client::Reply(Operation operation, const absl::StatusOr<Answer>& answer) {
  const absl::string_view message = answer.status().message();
  const std::span<const std::byte> body =
      answer.ok() ? std::span<const std::byte>(answer->body)
                  : std::as_bytes(std::span(message.data(), message.size()));
  const FrameHeader header{.size = static_cast<uint32_t>(sizeof(FrameHeader) + body.size()),
                           .operation = static_cast<uint16_t>(operation),
                           .status = static_cast<uint16_t>(answer.status().code())};
  std::vector<std::byte> frame(header.size);
  std::memcpy(frame.data(), &header, sizeof(header));
  if (!body.empty()) std::memcpy(frame.data() + sizeof(header), body.data(), body.size());
  std::span<const int> fds;
  if (answer.ok()) {
    const auto end = std::find(std::begin(answer->fds), std::end(answer->fds), -1);
    fds = std::span(std::begin(answer->fds), end);
  }
  size_t sent = 0;
  if (!Send(frame, fds, &sent)) return false;
  // Nothing was outstanding, so the first byte, which the files travel with, always fits: a peer
  // that left no room for it is not one that follows the protocol.
  if (sent == 0) return false;
  if (sent < frame.size()) {
    out_ = std::move(frame);
    out_start_ = sent;
  }
  return true;
}

bool Client::Flush() {
  size_t sent = 0;
  if (!Send(std::span(out_).subspan(out_start_), {}, &sent)) return false;
  out_start_ += sent;
  if (out_start_ == out_.size()) {
    out_ = {};
    out_start_ = 0;
  }
  return true;
}

bool Client::Send(std::span<const std::byte> bytes, std::span<const int> fds, size_t* sent) {
  iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxFileDescriptors)] = {};
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* item = CMSG_FIRSTHDR(&message);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(item), fds.data(), fds.size_bytes());
  }
  ssize_t done;
  do {
    done = sendmsg(fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (done < 0 && errno == EINTR);
  if (done < 0 && errno != EAGAIN) return false;
  *sent = std::max<ssize_t>(done, 0);
  return true;
}

}  // namespace vmsg::emu
