// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/store/store_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/xen-emu/store/operations.h"
#include "tools/xen-emu/store/session.h"
#include "tools/xen-emu/store/wire/message.h"

namespace vmsg::emu::store {
namespace {

constexpr size_t kReadBytes = size_t{16} * 1024;
constexpr size_t kPieces = 64;

struct Connection {
  int fd = -1;
  uint32_t armed = 0;   // what epoll waits for
  bool queued = false;  // in Impl::woken_
  MessageReader reader;
  Session session;
};

absl::Status ToStatus(int error, absl::string_view path) {
  if (error == 0) return absl::OkStatus();
  std::string text = absl::StrCat(path, ": ", ErrorName(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(text);
    case EINVAL:
      return absl::InvalidArgumentError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace

class StoreServer::Impl {
 public:
  explicit Impl(Options options)
      : options_(std::move(options)),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        operations_(options_, [this](Session& session) { Wake(session); }) {}

  ~Impl() {
    while (!connections_.empty()) Close(*connections_.begin()->second);
    if (epoll_ >= 0) close(epoll_);
  }

  int epoll() const { return epoll_; }
  Operations& operations() { return operations_; }

  absl::Status Add(int fd, uint16_t domain) {
    if (connections_.size() >= options_.connections) {
      close(fd);
      return absl::ResourceExhaustedError(
          absl::StrCat("xenstore connection of domain ", domain, " refused: the limit is ",
                       options_.connections, " (Options::connections)"));
    }
    auto connection = std::make_unique<Connection>();
    Connection& added = *connection;
    added.fd = fd;
    added.session.id = ++last_id_;
    added.session.domain = domain;
    added.armed = EPOLLIN;
    epoll_event event = {.events = EPOLLIN, .data = {.u64 = added.session.id}};
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
      const int error = errno;
      close(fd);
      return absl::InvalidArgumentError(absl::StrCat("xenstore connection of domain ", domain,
                                                     " refused: fd ", fd,
                                                     " cannot be polled: ", std::strerror(error)));
    }
    operations_.Attach(added.session);
    connections_.emplace(added.session.id, std::move(connection));
    return absl::OkStatus();
  }

  void Dispatch() {
    std::array<epoll_event, 64> events;
    const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 0);
    for (int i = 0; i < count; ++i) {
      Connection* connection = Find(events[i].data.u64);
      if (connection == nullptr) continue;  // closed by an event before this one
      if ((events[i].events & (EPOLLHUP | EPOLLERR)) && Paused(*connection)) {
        Close(*connection);  // nobody will read what it waits for
        continue;
      }
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) Receive(*connection);
      // Output that went out may have made room for requests that are held back.
      connection = Find(events[i].data.u64);
      if (connection != nullptr && (events[i].events & EPOLLOUT)) Settle(*connection);
      FlushWoken();
    }
    FlushWoken();
  }

  // Sends what waits; to be called after every use of operations() from outside.
  void FlushWoken() {
    while (!woken_.empty()) {
      std::vector<uint64_t> woken = std::exchange(woken_, {});
      for (uint64_t id : woken) {
        if (Connection* connection = Find(id)) {
          connection->queued = false;
          Settle(*connection);
        }
      }
    }
  }

  Counts counts() {
    Counts counts = {.nodes = operations_.nodes().size(),
                     .watches = operations_.watches(),
                     .transactions = operations_.transactions(),
                     .connections = connections_.size(),
                     .unread_bytes = 0};
    for (const auto& [id, connection] : connections_) {
      counts.unread_bytes += connection->session.output.bytes();
    }
    return counts;
  }

 private:
  Connection* Find(uint64_t id) {
    auto it = connections_.find(id);
    return it == connections_.end() ? nullptr : it->second.get();
  }

  void Wake(Session& session) {
    Connection* connection = Find(session.id);
    if (connection == nullptr || connection->queued) return;
    connection->queued = true;
    woken_.push_back(session.id);
  }

  bool Paused(const Connection& connection) const {
    return connection.session.output.bytes() >= options_.output_pause_bytes;
  }

  void Receive(Connection& connection) {
    std::array<char, kReadBytes> buffer;
    ssize_t got = recv(connection.fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
      Close(connection);
      return;
    }
    connection.reader.Feed(absl::string_view(buffer.data(), static_cast<size_t>(got)));
    Serve(connection);
    Wake(connection.session);
  }

  void Serve(Connection& connection) {
    while (!connection.session.closing && !Paused(connection)) {
      std::optional<Message> message = connection.reader.Next();
      if (!message.has_value()) break;
      operations_.Handle(connection.session, *message);
    }
    if (connection.reader.broken()) connection.session.closing = true;
  }

  // Sends what it can, goes on with requests that were held back, and arms epoll for what is left.
  void Settle(Connection& connection) {
    if (connection.session.closing || !Flush(connection)) {
      Close(connection);
      return;
    }
    if (!Paused(connection) && connection.reader.buffered() >= kHeaderBytes) {
      const size_t before = connection.reader.buffered();
      Serve(connection);
      if (connection.session.closing || connection.reader.buffered() != before) {
        Wake(connection.session);
      }
    }
    const bool held_back = connection.reader.buffered() >= kReadBytes;
    const uint32_t wanted = (Paused(connection) || held_back ? 0u : uint32_t{EPOLLIN}) |
                            (connection.session.output.empty() ? 0u : uint32_t{EPOLLOUT});
    if (wanted == connection.armed) return;
    epoll_event event = {.events = wanted, .data = {.u64 = connection.session.id}};
    epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event);
    connection.armed = wanted;
  }

  // false: the connection is dead.
  bool Flush(Connection& connection) {
    OutputQueue& output = connection.session.output;
    while (!output.empty()) {
      std::array<absl::string_view, kPieces> pieces;
      std::array<iovec, kPieces> vectors;
      const size_t count = output.Gather(absl::MakeSpan(pieces));
      for (size_t i = 0; i < count; ++i) {
        vectors[i] = {const_cast<char*>(pieces[i].data()), pieces[i].size()};
      }
      msghdr header = {};
      header.msg_iov = vectors.data();
      header.msg_iovlen = count;
      ssize_t sent = sendmsg(connection.fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return errno == EAGAIN;
      output.Sent(static_cast<size_t>(sent));
    }
    return true;
  }

  void Close(Connection& connection) {
    operations_.Detach(connection.session);
    close(connection.fd);
    connections_.erase(connection.session.id);
  }

  const Options options_;
  const int epoll_;
  Operations operations_;
  uint64_t last_id_ = 0;
  std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;
  std::vector<uint64_t> woken_;
};

StoreServer::StoreServer(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
StoreServer::~StoreServer() = default;

int StoreServer::poll_fd() const { return impl_->epoll(); }
void StoreServer::Dispatch() { impl_->Dispatch(); }

absl::Status StoreServer::AddConnection(int fd, uint16_t domain) { return impl_->Add(fd, domain); }

absl::Status StoreServer::IntroduceDomain(uint16_t domain) {
  const bool introduced = impl_->operations().Introduce(domain);
  impl_->FlushWoken();
  if (introduced) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("domain ", domain, " is introduced already"));
}

absl::Status StoreServer::ReleaseDomain(uint16_t domain) {
  const bool released = impl_->operations().Release(domain);
  impl_->FlushWoken();
  if (released) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("domain ", domain, " is not known to xenstore"));
}

absl::Status StoreServer::ShutDownDomain(uint16_t domain) {
  const bool done = impl_->operations().ShutDown(domain);
  impl_->FlushWoken();
  if (done) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("domain ", domain, " is not introduced"));
}

bool StoreServer::IsIntroduced(uint16_t domain) const {
  return impl_->operations().IsIntroduced(domain);
}

absl::Status StoreServer::Write(absl::string_view path, absl::string_view value) {
  const int error = impl_->operations().nodes().Write({}, std::string(path), value);
  impl_->FlushWoken();
  return ToStatus(error, path);
}

absl::StatusOr<std::string> StoreServer::Read(absl::string_view path) const {
  NodeRef node;
  const int error = impl_->operations().nodes().Read({}, std::string(path), &node);
  if (error != 0) return ToStatus(error, path);
  return node->value;
}

absl::Status StoreServer::SetPermissions(absl::string_view path,
                                         const std::vector<NodePermission>& entries) {
  std::string strings;
  for (const NodePermission& entry : entries) {
    absl::StrAppend(&strings, absl::string_view(&entry.access, 1), entry.domain,
                    absl::string_view("", 1));
  }
  std::optional<Permissions> permissions = ParsePermissions(strings);
  if (!permissions.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("permissions of ", path, ": at least one entry of n, r, w or b is needed"));
  }
  const int error =
      impl_->operations().nodes().SetPermissions({}, std::string(path), *std::move(permissions));
  impl_->FlushWoken();
  return ToStatus(error, path);
}

absl::Status StoreServer::Remove(absl::string_view path) {
  const int error = impl_->operations().nodes().Remove({}, std::string(path));
  impl_->FlushWoken();
  return ToStatus(error, path);
}

void StoreServer::LoseEvents(uint16_t domain, uint32_t count) {
  impl_->operations().LoseEvents(domain, count);
}

StoreServer::Counts StoreServer::counts() const { return impl_->counts(); }

}  // namespace vmsg::emu::store
