// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated-store/running_store.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::emu::store {
namespace {

void Signal(int fd) {
  uint64_t one = 1;
  if (write(fd, &one, sizeof(one)) != sizeof(one)) abort();
}

void Await(int fd) {
  uint64_t count;
  if (read(fd, &count, sizeof(count)) != sizeof(count)) abort();
}

void Watch(int epoll, int fd) {
  epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) abort();
}

}  // namespace

SocketPair MakeSocketPair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) abort();
  return {.client = fds[0], .server = fds[1]};
}

RunningStore::RunningStore(Options options) : server_(std::move(options)) {
  char directory[] = "/tmp/emulated-store.XXXXXX";
  if (mkdtemp(directory) == nullptr) abort();
  directory_ = directory;
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wake_ = eventfd(0, EFD_CLOEXEC);
  finished_ = eventfd(0, EFD_CLOEXEC);
  Watch(epoll_, wake_);
  Watch(epoll_, server_.poll_fd());
  thread_ = std::thread([this] { Loop(); });
}

RunningStore::~RunningStore() {
  Run([this](StoreServer&) { stop_ = true; });
  thread_.join();
  for (const auto& [fd, domain] : listeners_) {
    close(fd);
    unlink(absl::StrCat(directory_, "/", domain).c_str());
  }
  rmdir(directory_.c_str());
  close(epoll_);
  close(wake_);
  close(finished_);
}

std::string RunningStore::Socket(uint16_t domain) {
  const std::string path = absl::StrCat(directory_, "/", domain);
  Run([&](StoreServer&) {
    for (const auto& [fd, known] : listeners_) {
      if (known == domain) return;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un address = {.sun_family = AF_UNIX};
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) abort();
    if (listen(fd, 16) != 0) abort();
    listeners_[fd] = domain;
    Watch(epoll_, fd);
  });
  return path;
}

void RunningStore::Run(const std::function<void(StoreServer&)>& work) {
  work_ = work;
  Signal(wake_);
  Await(finished_);
}

void RunningStore::Loop() {
  while (!stop_) {
    std::array<epoll_event, 8> events;
    const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == wake_) {
        Await(wake_);
        work_(server_);
        Signal(finished_);
      } else if (fd == server_.poll_fd()) {
        server_.Dispatch();
      } else {
        const int client = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
        if (client >= 0) server_.AddConnection(client, listeners_.at(fd)).IgnoreError();
      }
    }
  }
}

}  // namespace vmsg::emu::store
