// SPDX-License-Identifier: Apache-2.0
#include "tests/end-to-end/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::test {
namespace {

// Met only by a failure: the sanitizers slow a busy two-core machine down a lot.
constexpr int kPatienceMs = 60'000;

std::vector<char*> Argv(const std::vector<std::string>& arguments) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  return argv;
}

// Forks and executes with these descriptors as 0, 1 and 2.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& arguments, int in, int out, int err) {
  std::vector<char*> argv = Argv(arguments);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(126);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(126);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  return pid;
}

int ExitStatus(int status) { return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status); }

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) == 0) read = ends[0], write = ends[1];
  }
  ~Pipe() {
    if (read >= 0) close(read);
    if (write >= 0) close(write);
  }
};

}  // namespace

absl::StatusOr<Finished> RunProgram(const std::vector<std::string>& arguments,
                                    const std::string& input) {
  Pipe in, out, err;
  absl::StatusOr<pid_t> pid = Spawn(arguments, in.read, out.write, err.write);
  if (!pid.ok()) return pid.status();
  close(std::exchange(out.write, -1));
  close(std::exchange(err.write, -1));
  close(std::exchange(in.read, -1));
  fcntl(in.write, F_SETFL, O_NONBLOCK);

  Finished finished;
  size_t written = 0;
  pollfd fds[3] = {{out.read, POLLIN, 0}, {err.read, POLLIN, 0}, {in.write, POLLOUT, 0}};
  std::string* const sinks[2] = {&finished.out, &finished.err};
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    if (written == input.size() && fds[2].fd >= 0) {
      close(std::exchange(in.write, -1));
      fds[2].fd = -1;
    }
    const int ready = poll(fds, 3, kPatienceMs);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      kill(*pid, SIGKILL);
      waitpid(*pid, nullptr, 0);
      return absl::DeadlineExceededError(absl::StrCat(arguments[0], " printed nothing for ",
                                                      kPatienceMs / 1000,
                                                      " s; so far: ", finished.out, finished.err));
    }
    for (int i = 0; i < 2; ++i) {
      if ((fds[i].revents & (POLLIN | POLLHUP)) == 0) continue;
      char bytes[65536];
      const ssize_t got = read(fds[i].fd, bytes, sizeof bytes);
      if (got > 0) {
        sinks[i]->append(bytes, static_cast<size_t>(got));
      } else {
        fds[i].fd = -1;
      }
    }
    if (fds[2].fd >= 0 && (fds[2].revents & (POLLOUT | POLLERR)) != 0) {
      const ssize_t put = write(in.write, input.data() + written, input.size() - written);
      // EPIPE: the program wants no more of it.
      written = put > 0 ? written + static_cast<size_t>(put) : input.size();
    }
  }
  int status = 0;
  waitpid(*pid, &status, 0);
  finished.exit_status = ExitStatus(status);
  return finished;
}

absl::StatusOr<ChildProcess> ChildProcess::Start(const std::vector<std::string>& arguments,
                                                 const std::string& log) {
  Pipe in, out;
  const int err = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (err < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening ", log));
  absl::StatusOr<pid_t> pid = Spawn(arguments, in.read, out.write, err);
  close(err);
  if (!pid.ok()) return pid.status();
  ChildProcess child;
  child.pid_ = *pid;
  child.out_ = std::exchange(out.read, -1);
  child.in_ = std::exchange(in.write, -1);
  return child;
}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(out_, other.out_);
  std::swap(in_, other.in_);
  std::swap(buffered_, other.buffered_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) {
    Signal(SIGKILL);
    Wait();
  }
  CloseInput();
  if (out_ >= 0) close(out_);
}

absl::StatusOr<std::string> ChildProcess::ReadLine() {
  for (;;) {
    const size_t end = buffered_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffered_.substr(0, end);
      buffered_.erase(0, end + 1);
      return line;
    }
    pollfd fd = {out_, POLLIN, 0};
    const int ready = poll(&fd, 1, kPatienceMs);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return absl::DeadlineExceededError("the program printed no further line");
    char bytes[4096];
    const ssize_t got = read(out_, bytes, sizeof bytes);
    if (got <= 0) return absl::UnavailableError("the program closed its output");
    buffered_.append(bytes, static_cast<size_t>(got));
  }
}

void ChildProcess::CloseInput() {
  if (in_ >= 0) close(std::exchange(in_, -1));
}

void ChildProcess::Signal(int signal) {
  if (pid_ <= 0 || kill(pid_, signal) != 0 || signal != SIGSTOP) return;
  // Its threads go on until the one that was chosen for the signal has run.
  siginfo_t info = {};
  while (waitid(P_PID, pid_, &info, WSTOPPED | WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
}

int ChildProcess::Wait() {
  if (pid_ <= 0) return 0;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return ExitStatus(status);
}

}  // namespace vmsg::test
