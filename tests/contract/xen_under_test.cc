// SPDX-License-Identifier: Apache-2.0
#include "tests/contract/xen_under_test.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sstream>

#include "absl/strings/str_cat.h"

extern char** environ;

namespace vmsg::test {
namespace {

constexpr int kLimitMilliseconds = 20'000;

bool Poll(int fd, int milliseconds) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&entry, 1, milliseconds) == 1;
}

}  // namespace

bool BecomesReadable(int fd) { return Poll(fd, kLimitMilliseconds); }
bool IsReadable(int fd) { return Poll(fd, 0); }

std::vector<std::string> Words(const char* what, uint32_t domain,
                               const std::vector<uint32_t>& numbers) {
  std::vector<std::string> words = {what, absl::StrCat(domain)};
  for (const uint32_t number : numbers) words.push_back(absl::StrCat(number));
  return words;
}

std::unique_ptr<PeerProcess> PeerProcess::Start(const XenUnderTest::Side& side,
                                                const std::vector<std::string>& arguments) {
  auto peer = std::make_unique<PeerProcess>();
  peer->kill_signal_ = side.kill_signal;
  std::vector<std::string> words = side.peer_command;
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int output[2];
  if (pipe2(output, O_CLOEXEC) != 0) return nullptr;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
  const int error = posix_spawnp(&peer->pid_, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(output[1]);
  std::string line;
  for (char c; error == 0 && read(output[0], &c, 1) == 1 && c != '\n';) line.push_back(c);
  close(output[0]);
  std::istringstream numbers(line);
  for (uint32_t number; numbers >> number;) peer->answer_.push_back(number);
  EXPECT_FALSE(peer->answer_.empty()) << "the peer process said: " << line;
  return peer;
}

void PeerProcess::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, kill_signal_);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace vmsg::test
