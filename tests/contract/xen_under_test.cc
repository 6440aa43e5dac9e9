// SPDX-License-Identifier: Apache-2.0
#include "tests/contract/xen_under_test.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sstream>

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

std::unique_ptr<PeerProcess> PeerProcess::Start(const XenUnderTest::Side& side,
                                                const std::vector<std::string>& arguments) {
  auto peer = std::make_unique<PeerProcess>();
  std::vector<std::string> words = {CONTRACT_PEER_PROGRAM, side.xen_option};
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
  const int error =
      posix_spawn(&peer->pid_, CONTRACT_PEER_PROGRAM, &actions, nullptr, argv.data(), environ);
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
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace vmsg::test
