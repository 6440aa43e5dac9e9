// SPDX-License-Identifier: Apache-2.0
#include "grants/emulated/connection.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace vmsg::emu {
namespace {

// Holds every reply but a long list of runs or references: a copied page, too.
constexpr size_t kFirstRead = sizeof(FrameHeader) + grants::kPageSize;

std::string ErrorText(int error) { return std::string(strerror(error)); }

}  // namespace

void OwnedFd::Reset() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

absl::Status Reply::Short() const {
  return absl::InvalidArgumentError(
      absl::StrCat("xen-emu's reply of ", body.size(), " bytes is too short"));
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("emulated Xen: the socket path ", socket_path, " has ", socket_path.size(),
                     " bytes, a Unix socket's at most ", sizeof(address.sun_path) - 1,
                     ": serve from a shorter directory"));
  }
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  OwnedFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket_fd) {
    return absl::ResourceExhaustedError(
        absl::StrCat("emulated Xen: no socket: ", ErrorText(errno)));
  }
  const timeval timeout{.tv_sec = kReplyTimeoutSeconds, .tv_usec = 0};
  setsockopt(socket_fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  setsockopt(socket_fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  if (connect(socket_fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::UnavailableError(absl::StrCat("emulated Xen: cannot connect to ", socket_path,
                                               ": ", ErrorText(errno),
                                               ": is xen-emu serving, and does the domain exist?"));
  }
  return std::unique_ptr<Connection>(new Connection(std::move(socket_fd), socket_path));
}

absl::StatusOr<Reply> Connection::Call(Operation operation, std::span<const std::byte> first,
                                       std::span<const std::byte> second) {
  if (absl::Status sent = Send(operation, first, second); !sent.ok()) return sent;
  return Receive(operation);
}

void Connection::Post(Operation operation, const ReleaseRequest& request) {
  Send(operation, std::as_bytes(std::span(&request, 1)), {}).IgnoreError();
}

absl::Status Connection::Send(Operation operation, std::span<const std::byte> first,
                              std::span<const std::byte> second) {
  if (!socket_) return Broken("is closed", 0);
  FrameHeader header{
      .size = static_cast<uint32_t>(sizeof(FrameHeader) + first.size() + second.size()),
      .operation = static_cast<uint16_t>(operation),
      .status = 0};
  iovec pieces[3] = {{&header, sizeof(header)},
                     {const_cast<std::byte*>(first.data()), first.size()},
                     {const_cast<std::byte*>(second.data()), second.size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 3;
  size_t left = header.size;
  while (left > 0) {
    const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return Broken("does not take a request", errno);
    left -= sent;
    size_t done = sent;
    while (message.msg_iovlen > 0 && done >= message.msg_iov[0].iov_len) {
      done -= message.msg_iov[0].iov_len;
      ++message.msg_iov;
      --message.msg_iovlen;
    }
    if (message.msg_iovlen > 0 && done > 0) {
      message.msg_iov[0].iov_base = static_cast<char*>(message.msg_iov[0].iov_base) + done;
      message.msg_iov[0].iov_len -= done;
    }
  }
  return absl::OkStatus();
}

absl::Status Connection::ReceiveFirst(std::span<std::byte> buffer, size_t* received, Reply* reply) {
  iovec piece{buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxFileDescriptors)];
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t got;
  do {
    got = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got == 0) return Broken("closed the connection", 0);
  if (got < 0) return Broken("does not answer", errno);
  size_t next = 0;
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item != nullptr;
       item = CMSG_NXTHDR(&message, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof(int));
      OwnedFd owned(fd);
      if (next < reply->fds.size()) reply->fds[next++] = std::move(owned);
    }
  }
  *received = got;
  return absl::OkStatus();
}

absl::StatusOr<Reply> Connection::Receive(Operation operation) {
  Reply reply;
  std::byte start[kFirstRead];
  size_t got = 0;
  if (absl::Status status = ReceiveFirst(start, &got, &reply); !status.ok()) return status;
  while (got < sizeof(FrameHeader)) {
    const ssize_t more = recv(socket_.get(), start + got, sizeof(start) - got, 0);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) return Broken("does not answer in full", more < 0 ? errno : 0);
    got += more;
  }
  FrameHeader header{};
  std::memcpy(&header, start, sizeof(header));
  if (header.size < sizeof(header) || header.size > kMaxReplySize || header.size < got ||
      header.operation != static_cast<uint16_t>(operation)) {
    return Broken("broke the protocol", EPROTO);
  }
  reply.body.resize(header.size - sizeof(header));
  got -= sizeof(header);
  if (got > 0) std::memcpy(reply.body.data(), start + sizeof(header), got);
  while (got < reply.body.size()) {
    const ssize_t more = recv(socket_.get(), reply.body.data() + got, reply.body.size() - got, 0);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) return Broken("does not answer in full", more < 0 ? errno : 0);
    got += more;
  }
  if (header.status != 0) {
    return absl::Status(
        static_cast<absl::StatusCode>(header.status),
        absl::string_view(reinterpret_cast<const char*>(reply.body.data()), reply.body.size()));
  }
  return reply;
}

absl::Status Connection::Broken(absl::string_view what, int error) {
  socket_.Reset();
  return absl::UnavailableError(absl::StrCat("emulated Xen: xen-emu at ", path_, " ", what,
                                             error != 0 ? ": " : "",
                                             error != 0 ? ErrorText(error) : ""));
}

}  // namespace vmsg::emu
