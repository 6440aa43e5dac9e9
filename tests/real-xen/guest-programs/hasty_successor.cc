// SPDX-License-Identifier: Apache-2.0
// In a guest whose device 0 is an entropy source: frontends that are killed soon after they asked
// for a connection (their state 3), and successors that ask at once, while the backend may still be
// connecting to the one that is dead, or refusing it.
//
//   hasty-successor ROUNDS   ends with 1 when a successor's connection does not work
//   hasty-successor first MILLISECONDS
//                            asks, and is killed so much later
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "frontend-model/bus/bus_connection.h"
#include "frontend-model/drivers/rng_driver.h"
#include "grants/platform.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

extern char** environ;

namespace vmsg::test {
namespace {

using frontend::After;
using frontend::BusConnection;
using xenstore::XenbusState;

// Long enough for any answer; what is dead never answers.
constexpr auto kPatience = std::chrono::seconds(20);
constexpr char kFirst[] = "first";
// How long the first one of a round lives, one after the other: the backend has not looked, is
// mapping, has mapped.
constexpr std::array kLives = {0, 5, 20, 60};

// Kills its process some time after the state 3 is there.
class FatalStore final : public xenstore::Store {
 public:
  FatalStore(std::unique_ptr<xenstore::Store> store, int milliseconds)
      : store_(std::move(store)), milliseconds_(milliseconds) {}

  absl::Status Transaction(
      const std::function<absl::Status(xenstore::NodeAccess&)>& body) override {
    absl::Status status = store_->Transaction(body);
    absl::StatusOr<XenbusState> state = xenstore::ReadState(*store_, "device/virtio-msg/0");
    if (state.ok() && *state == XenbusState::kInitialised) {
      ::poll(nullptr, 0, milliseconds_);
      ::raise(SIGKILL);
    }
    return status;
  }
  absl::StatusOr<std::string> Read(absl::string_view path) override { return store_->Read(path); }
  absl::Status Write(absl::string_view path, absl::string_view value) override {
    return store_->Write(path, value);
  }
  absl::Status MakeDirectory(absl::string_view path) override {
    return store_->MakeDirectory(path);
  }
  absl::Status Remove(absl::string_view path) override { return store_->Remove(path); }
  absl::StatusOr<std::vector<std::string>> List(absl::string_view path) override {
    return store_->List(path);
  }
  absl::StatusOr<std::vector<xenstore::Permission>> GetPermissions(
      absl::string_view path) override {
    return store_->GetPermissions(path);
  }
  absl::Status SetPermissions(absl::string_view path,
                              const std::vector<xenstore::Permission>& permissions) override {
    return store_->SetPermissions(path, permissions);
  }
  absl::Status Watch(absl::string_view path, absl::string_view token) override {
    return store_->Watch(path, token);
  }
  absl::Status Unwatch(absl::string_view path, absl::string_view token) override {
    return store_->Unwatch(path, token);
  }
  int fd() const override { return store_->fd(); }
  absl::StatusOr<std::vector<xenstore::WatchEvent>> TakeWatchEvents(size_t max) override {
    return store_->TakeWatchEvents(max);
  }
  absl::StatusOr<bool> IsDomainIntroduced(uint16_t domain) override {
    return store_->IsDomainIntroduced(domain);
  }

 private:
  const std::unique_ptr<xenstore::Store> store_;
  const int milliseconds_;
};

absl::StatusOr<std::unique_ptr<BusConnection>> Connect(grants::Platform& platform,
                                                       std::optional<int> life) {
  frontend::ConnectionParts parts;
  absl::StatusOr<std::unique_ptr<xenstore::Store>> store =
      xenstore::OpenStore(platform.store_socket());
  if (!store.ok()) return store.status();
  absl::StatusOr<std::unique_ptr<grants::GrantSharer>> sharer = platform.OpenGrantSharer();
  if (!sharer.ok()) return sharer.status();
  absl::StatusOr<std::unique_ptr<grants::EventChannels>> events = platform.OpenEventChannels();
  if (!events.ok()) return events.status();
  parts.store = *std::move(store);
  if (life) parts.store = std::make_unique<FatalStore>(std::move(parts.store), *life);
  parts.sharer = *std::move(sharer);
  parts.events = *std::move(events);
  // Few: what the dead one granted is let go slowly by the guest's kernel while it is still mapped.
  return BusConnection::Open(std::move(parts), {.pages = 64, .timeout = kPatience});
}

// The first frontend of a round, in a process of its own.
absl::Status RunFirst(int life) {
  pid_t child = 0;
  std::string program = "/proc/self/exe", verb = kFirst, milliseconds = absl::StrCat(life);
  std::array<char*, 4> arguments = {program.data(), verb.data(), milliseconds.data(), nullptr};
  const int error =
      ::posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments.data(), environ);
  if (error != 0) return absl::ErrnoToStatus(error, "posix_spawn");
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return absl::ErrnoToStatus(errno, "waitpid");
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the first frontend was not killed in state 3 (wait status ", status, ")"));
}

// Whether the connection is alive.
absl::Status Use(BusConnection& bus) {
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> device =
      frontend::DeviceClient::Probe(bus.bus(), bus.memory(), 0);
  if (!device.ok()) return device.status();
  absl::StatusOr<std::unique_ptr<frontend::RngDriver>> entropy =
      frontend::RngDriver::Create(*std::move(device));
  if (!entropy.ok()) return entropy.status();
  std::array<std::byte, 16> bytes;
  return (*entropy)->Fill(bytes, After(kPatience));
}

absl::Status Run(int rounds) {
  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform("");
  if (!platform.ok()) return platform.status();
  int dead = 0;
  for (int round = 1; round <= rounds; ++round) {
    if (absl::Status status = RunFirst(kLives[round % kLives.size()]); !status.ok()) {
      return status;
    }
    absl::StatusOr<std::unique_ptr<BusConnection>> bus = Connect(**platform, std::nullopt);
    absl::Status status = bus.ok() ? Use(**bus) : bus.status();
    if (!status.ok()) {
      ++dead;
      std::cout << "round " << round << ": " << status.message() << std::endl;
    }
    if (bus.ok()) (*bus)->Close().IgnoreError();
  }
  if (dead == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(dead, " of ", rounds, " successors had no connection"));
}

int Main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  int number = 0;
  absl::Status status = absl::InvalidArgumentError("hasty-successor ROUNDS");
  if (words.size() == 2 && words[0] == kFirst && absl::SimpleAtoi(words[1], &number)) {
    absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform("");
    status = platform.ok() ? Connect(**platform, number).status() : platform.status();
  } else if (words.size() == 1 && absl::SimpleAtoi(words[0], &number)) {
    status = Run(number);
  }
  if (status.ok()) return 0;
  std::cerr << "hasty-successor: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace vmsg::test

int main(int argc, char** argv) { return vmsg::test::Main(argc, argv); }
