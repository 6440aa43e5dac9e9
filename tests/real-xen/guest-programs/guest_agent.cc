// SPDX-License-Identifier: Apache-2.0
// What a guest of the rig runs for Dom0 (whose side is `guest run`): the command line in its node
// data/command, behind a number, whenever the number changes. The output goes to the console,
// between "@begin NUMBER" and "@end NUMBER STATUS"; then the number goes to data/done.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

extern "C" {  // the header does not say it
#include <xenstore.h>
}

#include <cstdio>
#include <cstdlib>
#include <string>

extern char** environ;

namespace {

// As a shell tells it.
int RunShell(const std::string& command) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  const char* const words[] = {"sh", "-c", command.c_str(), nullptr};
  pid_t shell;
  const int error =
      posix_spawnp(&shell, "sh", &actions, nullptr, const_cast<char* const*>(words), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status;
  if (error != 0 || waitpid(shell, &status, 0) != shell) return 127;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

int main() {
  xs_handle* const store = xs_open(0);
  if (store == nullptr || !xs_watch(store, "data/command", "")) {
    std::perror("guest-agent: xenstore");
    return 1;
  }
  std::string last;
  for (unsigned count; char** event = xs_read_watch(store, &count);) {
    std::free(event);
    unsigned size = 0;
    char* const value = static_cast<char*>(xs_read(store, XBT_NULL, "data/command", &size));
    if (value == nullptr) continue;  // nothing was asked yet
    const std::string request(value, size);
    std::free(value);
    const size_t space = request.find(' ');
    const std::string number = request.substr(0, space);
    if (space == std::string::npos || number == last) continue;
    last = number;
    std::printf("@begin %s\n", number.c_str());
    std::fflush(stdout);
    const int status = RunShell(request.substr(space + 1));
    std::printf("@end %s %d\n", number.c_str(), status);
    std::fflush(stdout);
    xs_write(store, XBT_NULL, "data/done", number.data(), number.size());
  }
  std::perror("guest-agent: xenstore");
  return 1;
}
