// SPDX-License-Identifier: Apache-2.0
// What scenarios ask of a guest, each in one process: a shell's dozen of them costs seconds in
// QEMU.
//
//   guest domid NAME                        its domain's number
//   guest read NAME NODE                    a node in the guest's directory of xenstore
//   guest await NAME NODE NUMBER SECONDS    until that node says this number or a greater one
//   guest run NAME SECONDS COMMAND          a command line in it (guest/init): its output, its
//   status
//
// Ends with 254 and the reason on standard error when the guest is gone or the time is over.
#include <poll.h>

extern "C" {  // the header does not say it
#include <xenstore.h>
}

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kUnable = 254;
constexpr char kConsoles[] = "/var/log/xen/console/guest-";

[[noreturn]] void Fail(const std::string& why) {
  std::cerr << why << std::endl;
  std::exit(kUnable);
}

class Guest {
 public:
  explicit Guest(const std::string& name) : name_(name), store_(xs_open(0)) {
    if (store_ == nullptr) Fail("xenstore does not answer");
    unsigned count = 0;
    char** domains = xs_directory(store_, XBT_NULL, "/local/domain", &count);
    for (unsigned i = 0; domains != nullptr && i < count; ++i) {
      const std::string home = std::string("/local/domain/") + domains[i];
      // A name may be used again while the old domain's directory goes.
      if (Value(home + "/name") == name) home_ = home;
    }
    std::free(domains);
    if (home_.empty()) Fail("there is no guest " + name);
  }
  ~Guest() { xs_close(store_); }
  Guest(const Guest&) = delete;

  std::string domid() const { return home_.substr(home_.rfind('/') + 1); }
  std::optional<std::string> Read(const std::string& node) { return Value(home_ + "/" + node); }

  int Await(const std::string& node, long number, int seconds) {
    Watch(node, seconds);
    for (;;) {
      const std::optional<std::string> value = Read(node);
      if (value && std::atol(value->c_str()) >= number) return 0;
      Wait("is not at " + std::to_string(number) + " with " + node);
    }
  }

  int Run(const std::string& command, int seconds) {
    Watch("data/done", seconds);
    const std::string log = kConsoles + name_ + ".log";
    const std::streamoff from = std::ifstream(log, std::ios::ate | std::ios::binary).tellg();
    std::random_device random;
    const std::string id = std::to_string((uint64_t{random()} << 32) | random());
    const std::string request = id + " " + command;
    if (!xs_write(store_, XBT_NULL, (home_ + "/data/command").c_str(), request.data(),
                  request.size())) {
      Fail("xenstore refuses the command for " + name_ + ": " + command);
    }
    const std::string begin = "@begin " + id + "\n", end = "@end " + id + " ";
    for (;;) {
      std::string said = Content(log, from);
      const size_t ended = said.rfind(end);
      if (ended != std::string::npos && said.find('\n', ended) != std::string::npos) {
        const size_t begun = said.find(begin);
        const size_t start = begun == std::string::npos ? 0 : begun + begin.size();
        std::cout << said.substr(start, ended - start) << std::flush;
        return std::atoi(said.c_str() + ended + end.size());
      }
      Wait("did not end: " + command + "\n" + said);
    }
  }

 private:
  static std::string Content(const std::string& path, std::streamoff from) {
    std::ifstream file(path, std::ios::binary);
    file.seekg(from);
    std::string content{std::istreambuf_iterator<char>(file), {}};
    std::erase(content, '\r');
    return content;
  }

  std::optional<std::string> Value(const std::string& path) {
    unsigned size = 0;
    void* value = xs_read(store_, XBT_NULL, path.c_str(), &size);
    if (value == nullptr) return std::nullopt;
    std::string text(static_cast<const char*>(value), size);
    std::free(value);
    return text;
  }

  void Watch(const std::string& node, int seconds) {
    deadline_ = Clock::now() + std::chrono::seconds(seconds);
    if (!xs_watch(store_, (home_ + "/" + node).c_str(), "")) Fail("xenstore refuses a watch");
  }

  // For the watch, or half a second: the console may come after the event, and a guest may just
  // end.
  void Wait(const std::string& why) {
    if (!Value(home_ + "/name")) Fail("guest " + name_ + " is gone; it " + why);
    if (Clock::now() >= deadline_) Fail("guest " + name_ + " " + why);
    pollfd ready = {.fd = xs_fileno(store_), .events = POLLIN, .revents = 0};
    ::poll(&ready, 1, 500);
    while (char** event = xs_check_watch(store_)) std::free(event);
  }

  const std::string name_;
  xs_handle* const store_;
  std::string home_;
  Clock::time_point deadline_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::string verb = words.empty() ? "" : words[0];
  if (verb == "domid" && words.size() == 2) {
    std::cout << Guest(words[1]).domid() << "\n";
    return 0;
  }
  if (verb == "read" && words.size() == 3) {
    const std::optional<std::string> value = Guest(words[1]).Read(words[2]);
    if (value) std::cout << *value << "\n";
    return value ? 0 : 1;
  }
  if (verb == "await" && words.size() == 5) {
    return Guest(words[1]).Await(words[2], std::atol(words[3].c_str()),
                                 std::atoi(words[4].c_str()));
  }
  if (verb == "run" && words.size() == 4) {
    return Guest(words[1]).Run(words[3], std::atoi(words[2].c_str()));
  }
  std::cerr << "guest domid NAME | read NAME NODE | await NAME NODE NUMBER SECONDS | run NAME "
               "SECONDS COMMAND\n";
  return kUnable;
}
