// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/server.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tools/xen-emu/toolstack.h"

namespace vmsg::emu {
namespace {

constexpr size_t kMaxClients = 16384;
constexpr int kAcceptBatch = 64;
// What epoll reports; everything above is a listener or a client.
constexpr uint64_t kStopId = 0;
constexpr uint64_t kStoreId = 1;
constexpr uint64_t kFirstId = 2;

absl::Status Failed(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat("xen-emu: ", what, ": ", strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Create(const std::string& directory,
                                                       const DomainLimits& limits) {
  auto server = std::unique_ptr<Server>(new Server(directory));
  if (absl::Status status = server->Start(limits); !status.ok()) return status;
  return server;
}

absl::Status Server::Start(const DomainLimits& limits) {
  next_id_ = kFirstId;
  if (absl::Status status = TakeDirectory(); !status.ok()) return status;
  epoll_ = OwnedFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return Failed("no epoll");
  spare_ = OwnedFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  auto domains = DomainList::Create(limits);
  if (!domains.ok()) return domains.status();
  domains_ = *std::move(domains);
  store::Options options;
  options.domain_exists = [this](uint16_t domain) { return domains_->Find(domain) != nullptr; };
  store_ = std::make_unique<store::StoreServer>(std::move(options));
  hypervisor_ = std::make_unique<Hypervisor>(domains_.get());
  commands_ = std::make_unique<Commands>(
      domains_.get(), hypervisor_.get(), store_.get(),
      Commands::Sockets{
          .open = [this](const std::shared_ptr<Domain>& domain) { return OpenSockets(domain); },
          .close = [this](const std::shared_ptr<Domain>& domain) { CloseSockets(domain); },
          .describe = [this] { return Describe(); }});
  if (absl::Status status = DescribeDom0(*store_); !status.ok()) return status;
  if (!Watch(store_->poll_fd(), EPOLLIN, kStoreId, EPOLL_CTL_ADD)) return Failed("no epoll");
  return OpenSockets(domains_->Find(0));
}

Server::~Server() {
  for (const auto& domain : domains_ ? domains_->All() : std::vector<std::shared_ptr<Domain>>()) {
    if (domain->state != Domain::State::kDying) CloseSockets(domain);
  }
  if (domains_) rmdir(absl::StrCat(directory_, "/domains").c_str());
}

absl::Status Server::TakeDirectory() {
  if (mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) return Failed(directory_);
  lock_ =
      OwnedFd(open(absl::StrCat(directory_, "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock_) return Failed(absl::StrCat(directory_, "/lock"));
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("xen-emu: another xen-emu serves ", directory_));
  }
  if (mkdir(absl::StrCat(directory_, "/domains").c_str(), 0700) != 0 && errno != EEXIST) {
    return Failed(absl::StrCat(directory_, "/domains"));
  }
  return absl::OkStatus();
}

std::string Server::DomainDirectory(const Domain& domain) const {
  return domain.id == 0 ? directory_ : absl::StrCat(directory_, "/domains/", domain.id);
}

absl::Status Server::OpenSockets(const std::shared_ptr<Domain>& domain) {
  const std::string directory = DomainDirectory(*domain);
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return Failed(directory);
  const std::string lock = absl::StrCat(directory, "/", kServerLock);
  if (!OwnedFd(open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600))) return Failed(lock);
  absl::Status status = Listen(domain, kHypervisorSocket, /*store=*/false);
  if (status.ok()) status = Listen(domain, kStoreSocket, /*store=*/true);
  return status;
}

absl::Status Server::Listen(const std::shared_ptr<Domain>& domain, const char* name, bool store) {
  const std::string path = absl::StrCat(DomainDirectory(*domain), "/", name);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("xen-emu: ", path, " is longer than the ",
                                                   sizeof(address.sun_path) - 1,
                                                   " bytes of a socket's path"));
  }
  memcpy(address.sun_path, path.data(), path.size());
  unlink(path.c_str());  // left by one that was killed: the lock is ours
  OwnedFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return Failed("no socket");
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener.get(), SOMAXCONN) != 0) {
    return Failed(path);
  }
  const uint64_t id = next_id_++;
  if (!Watch(listener.get(), EPOLLIN, id, EPOLL_CTL_ADD)) return Failed(path);
  listeners_.emplace(id, Listener{std::move(listener), domain, store, path});
  return absl::OkStatus();
}

void Server::CloseSockets(const std::shared_ptr<Domain>& domain) {
  std::erase_if(listeners_, [&](const auto& listener) {
    if (listener.second.domain != domain) return false;
    unlink(listener.second.path.c_str());
    return true;
  });
  unlink(absl::StrCat(DomainDirectory(*domain), "/", kServerLock).c_str());
  if (domain->id != 0) {
    // With the locks that frontends in it left there.
    std::error_code ignored;
    std::filesystem::remove_all(DomainDirectory(*domain), ignored);
  }
  std::vector<uint64_t> gone;
  for (const auto& [id, client] : clients_) {
    if (client->handle.domain == domain) gone.push_back(id);
  }
  for (const uint64_t id : gone) Close(id);
}

std::string Server::Describe() const {
  return absl::StrCat("hypervisor connections=", clients_.size(),
                      " protocol-errors=", protocol_errors_, "\n");
}

bool Server::Watch(int fd, uint32_t events, uint64_t id, int operation) {
  epoll_event event{.events = events, .data = {.u64 = id}};
  return epoll_ctl(epoll_.get(), operation, fd, &event) == 0;
}

void Server::Accept(Listener& listener) {
  for (int i = 0; i < kAcceptBatch; ++i) {
    OwnedFd socket(accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EMFILE || errno == ENFILE) {
        spare_.Reset();
        OwnedFd refused(accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
        refused.Reset();
        spare_ = OwnedFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
        fprintf(stderr, "xen-emu: no file descriptors left: a connection was refused\n");
      }
      return;
    }
    if (listener.store) {
      store_->AddConnection(socket.Release(), listener.domain->id).IgnoreError();
    } else {
      Add(std::move(socket), listener.domain);
    }
  }
}

void Server::Add(OwnedFd socket, const std::shared_ptr<Domain>& domain) {
  if (clients_.size() >= kMaxClients) return;
  const uint64_t id = next_id_++;
  if (!Watch(socket.get(), EPOLLIN | EPOLLRDHUP, id, EPOLL_CTL_ADD)) return;
  clients_.emplace(id, std::make_unique<Client>(std::move(socket), domain));
}

void Server::Close(uint64_t id) {
  const auto client = clients_.find(id);
  if (client == clients_.end()) return;
  hypervisor_->Close(client->second->handle);
  clients_.erase(client);
}

absl::Status Server::Run(int stop_fd) {
  if (!Watch(stop_fd, EPOLLIN | EPOLLRDHUP, kStopId, EPOLL_CTL_ADD)) {
    return Failed("cannot watch for the end");
  }
  while (!stop_) ServeBatch();
  return absl::OkStatus();
}

int Server::TimeoutMilliseconds() const {
  if (store_due_ == absl::InfiniteFuture()) return -1;
  const absl::Duration left = store_due_ - absl::Now();
  return static_cast<int>(
      std::max<int64_t>(0, absl::ToInt64Milliseconds(left + absl::Microseconds(999))));
}

void Server::ServeBatch() {
  // All that is ready is taken at once, so that the order of the passes holds.
  const size_t sources = listeners_.size() + clients_.size() + 2;
  if (events_.size() < sources) events_.resize(2 * sources);
  const int count = epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()),
                               TimeoutMilliseconds());
  const std::span<const epoll_event> events(events_.data(), std::max(count, 0));
  for (const epoll_event& event : events) ReadAndRelease(event.data.u64, event.events);
  hypervisor_->DrainReleases();
  bool store_ready = store_due_ <= absl::Now();
  for (const epoll_event& event : events) {
    const uint64_t id = event.data.u64;
    if (id == kStopId) {
      stop_ = true;
    } else if (id == kStoreId) {
      store_ready = true;
    } else if (const auto listener = listeners_.find(id); listener != listeners_.end()) {
      Accept(listener->second);
    } else {
      ServeRequests(id);
    }
  }
  const Faults& faults = hypervisor_->faults();
  const bool released =
      !store_watched_ && !faults.store_held && faults.store_delay == absl::ZeroDuration();
  if (store_ready || released) ServeStore();
}

void Server::ReadAndRelease(uint64_t id, uint32_t events) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  Client& client = *found->second;
  if ((events & EPOLLOUT) != 0) {
    if (!client.Flush()) return Close(id);
    if (!client.waits_for_room()) Watch(client.fd(), EPOLLIN | EPOLLRDHUP, id, EPOLL_CTL_MOD);
  }
  const bool ended = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if (client.waits_for_room()) {
    if (ended) Close(id);
    return;
  }
  const Client::Input input = client.Read(ended);
  if (input == Client::Input::kMalformed) ++protocol_errors_;
  if (input != Client::Input::kOpen) return Close(id);
  while (const auto frame = client.Front()) {
    if (!IsOneWay(frame->operation)) break;
    if (!hypervisor_->Serve(client.handle, frame->operation, frame->body).ok()) ++protocol_errors_;
    client.Pop();
  }
}

void Server::ServeRequests(uint64_t id) {
  for (;;) {
    const auto found = clients_.find(id);
    if (found == clients_.end()) return;
    Client& client = *found->second;
    const auto frame = client.Front();
    if (!frame.has_value()) return;
    const Operation operation = frame->operation;
    absl::StatusOr<Answer> answer;
    if (operation == Operation::kCommand && client.handle.domain->id == 0 &&
        frame->body.size() <= kMaxCommandSize) {
      auto text = commands_->Run(
          absl::string_view(reinterpret_cast<const char*>(frame->body.data()), frame->body.size()));
      if (text.ok()) {
        answer = Answer();
        answer->AppendArray(text->data(), text->size());
      } else {
        answer = text.status();
      }
    } else if (operation == Operation::kCommand) {
      answer = absl::PermissionDeniedError("commands are Dom0's, and have a bounded size");
    } else {
      answer = hypervisor_->Serve(client.handle, operation, frame->body);
    }
    client.Pop();
    if (IsOneWay(operation)) continue;
    if (!client.Reply(operation, answer)) return Close(id);
    if (client.waits_for_room()) {
      Watch(client.fd(), EPOLLOUT, id, EPOLL_CTL_MOD);
      return;
    }
  }
}

void Server::ServeStore() {
  const Faults& faults = hypervisor_->faults();
  const bool due = store_due_ <= absl::Now();
  store_due_ = absl::InfiniteFuture();
  if (faults.store_held || (faults.store_delay > absl::ZeroDuration() && !due)) {
    if (store_watched_) Watch(store_->poll_fd(), 0, kStoreId, EPOLL_CTL_DEL);
    store_watched_ = false;
    if (!faults.store_held) store_due_ = absl::Now() + faults.store_delay;
    return;
  }
  store_->Dispatch();
  if (!store_watched_) Watch(store_->poll_fd(), EPOLLIN, kStoreId, EPOLL_CTL_ADD);
  store_watched_ = true;
}

}  // namespace vmsg::emu
