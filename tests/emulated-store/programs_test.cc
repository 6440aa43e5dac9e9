// SPDX-License-Identifier: Apache-2.0
// Debian's xenstore-* programs and libxenstore, unmodified, against the emulated xenstored.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/emulated-store/running_store.h"

extern "C" {
#include <xenstore.h>
}

namespace vmsg::emu::store {
namespace {

using ::testing::HasSubstr;

// A program with its standard output on a pipe, talking to one socket.
class Program {
 public:
  Program(const std::string& socket, std::vector<std::string> arguments) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) abort();
    output_ = fds[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fds[1], STDERR_FILENO);
    std::string variable = "XENSTORED_PATH=" + socket;
    char* environment[] = {variable.data(), nullptr};
    arguments[0] = "/usr/bin/" + arguments[0];
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    if (posix_spawn(&child_, argv[0], &actions, nullptr, argv.data(), environment) != 0) abort();
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
  }

  // The next line without its newline; what there is when the output ends.
  std::string Line() {
    std::string line;
    char c;
    while (read(output_, &c, 1) == 1 && c != '\n') line.push_back(c);
    return line;
  }

  // The rest of the output; sets `exit_code`.
  std::string Finish() {
    std::string text;
    char buffer[4096];
    ssize_t got;
    while ((got = read(output_, buffer, sizeof(buffer))) > 0) text.append(buffer, got);
    close(output_);
    int status;
    waitpid(child_, &status, 0);
    exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return text;
  }

  int exit_code = -1;

 private:
  pid_t child_ = -1;
  int output_ = -1;
};

struct Outcome {
  int exit_code;
  std::string output;
};

class Programs : public ::testing::Test {
 protected:
  Outcome Run(uint16_t domain, std::vector<std::string> arguments) {
    Program program(store_.Socket(domain), std::move(arguments));
    std::string output = program.Finish();
    return {program.exit_code, output};
  }

  RunningStore store_;
};

TEST_F(Programs, WriteReadListExistsRemove) {
  EXPECT_EQ(Run(0, {"xenstore-write", "/a/b", "hello", "/a/c", "world"}).exit_code, 0);
  EXPECT_EQ(Run(0, {"xenstore-read", "/a/b"}).output, "hello\n");
  EXPECT_EQ(Run(0, {"xenstore-list", "/a"}).output, "b\nc\n");
  EXPECT_EQ(Run(0, {"xenstore-exists", "/a/b"}).exit_code, 0);
  EXPECT_EQ(Run(0, {"xenstore-rm", "/a"}).exit_code, 0);
  EXPECT_NE(Run(0, {"xenstore-exists", "/a/b"}).exit_code, 0);
}

TEST_F(Programs, LsShowsTreeValuesAndPermissions) {
  Run(0, {"xenstore-write", "/vm/1/name", "guest"});
  Run(0, {"xenstore-chmod", "/vm/1/name", "n5", "r6"});
  EXPECT_THAT(Run(0, {"xenstore-ls", "-f", "-p"}).output,
              HasSubstr("/vm/1/name = \"guest\"   (n5,r6)"));
  EXPECT_THAT(Run(0, {"xenstore-ls"}).output, HasSubstr("tool = \"\"\n xenstored = \"\"\n"));
}

TEST_F(Programs, LsOfDirectoryTooLongForOneMessage) {
  store_.Run([](StoreServer& server) {
    for (int i = 0; i < 900; ++i) {
      ASSERT_TRUE(server.Write(absl::StrCat("/many/long-name-of-a-child-", i), "").ok());
    }
  });
  Outcome outcome = Run(0, {"xenstore-list", "/many"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output, HasSubstr("long-name-of-a-child-0\n"));
  EXPECT_THAT(outcome.output, HasSubstr("long-name-of-a-child-899\n"));
}

TEST_F(Programs, WatchPrintsFirstEventAndChange) {
  Program watch(store_.Socket(0), {"xenstore-watch", "-n", "2", "/a/b"});
  EXPECT_EQ(watch.Line(), "/a/b");
  Run(0, {"xenstore-write", "/a/b/c", "changed"});
  EXPECT_EQ(watch.Line(), "/a/b/c");
  watch.Finish();
  EXPECT_EQ(watch.exit_code, 0);
}

TEST_F(Programs, GuestReadsBelowItsOwnDirectory) {
  store_.Run([](StoreServer& server) {
    ASSERT_TRUE(server.Write("/local/domain/5/name", "guest").ok());
    ASSERT_TRUE(server.SetPermissions("/local/domain/5", {{'n', 5}}).ok());
    ASSERT_TRUE(server.SetPermissions("/local/domain/5/name", {{'n', 0}, {'r', 5}}).ok());
  });
  EXPECT_EQ(Run(5, {"xenstore-read", "name"}).output, "guest\n");
  EXPECT_NE(Run(5, {"xenstore-write", "name", "other"}).exit_code, 0);
  EXPECT_EQ(Run(5, {"xenstore-write", "data/x", "1"}).exit_code, 0);
  EXPECT_NE(Run(5, {"xenstore-write", "/local/domain/6/x", "1"}).exit_code, 0);
}

class Library : public ::testing::Test {
 protected:
  using Handle = std::unique_ptr<xs_handle, decltype(&xs_close)>;
  Handle Open(uint16_t domain) {
    setenv("XENSTORED_PATH", store_.Socket(domain).c_str(), 1);
    return Handle(xs_open(0), &xs_close);
  }
  static std::string Read(const Handle& handle, const char* path, xs_transaction_t t = XBT_NULL) {
    unsigned length = 0;
    char* value = static_cast<char*>(xs_read(handle.get(), t, path, &length));
    if (value == nullptr) return absl::StrCat("errno ", errno);
    std::string text(value, length);
    free(value);
    return text;
  }
  // Waits for the next event: "path|token".
  static std::string Event(const Handle& handle) {
    unsigned count = 0;
    char** event = xs_read_watch(handle.get(), &count);
    if (event == nullptr) return "none";
    std::string text = absl::StrCat(event[XS_WATCH_PATH], "|", event[XS_WATCH_TOKEN]);
    free(event);
    return text;
  }

  RunningStore store_;
};

TEST_F(Library, TransactionIsInvisibleUntilItCommits) {
  Handle a = Open(0), b = Open(0);
  ASSERT_NE(a, nullptr);
  ASSERT_TRUE(xs_watch(a.get(), "/lab", "tok"));
  EXPECT_EQ(Event(a), "/lab|tok");
  xs_transaction_t t = xs_transaction_start(b.get());
  ASSERT_NE(t, XBT_NULL);
  EXPECT_TRUE(xs_write(b.get(), t, "/lab/x", "1", 1));
  EXPECT_EQ(Read(b, "/lab/x", t), "1");
  EXPECT_EQ(Read(a, "/lab/x"), absl::StrCat("errno ", ENOENT));
  EXPECT_TRUE(xs_transaction_end(b.get(), t, false));
  EXPECT_EQ(Event(a), "/lab/x|tok");
  EXPECT_EQ(Read(a, "/lab/x"), "1");
}

TEST_F(Library, ConflictingTransactionGetsEagain) {
  Handle a = Open(0), b = Open(0);
  ASSERT_TRUE(xs_write(a.get(), XBT_NULL, "/lab/x", "1", 1));
  xs_transaction_t t = xs_transaction_start(b.get());
  EXPECT_EQ(Read(b, "/lab/x", t), "1");
  ASSERT_TRUE(xs_write(a.get(), XBT_NULL, "/lab/x", "2", 1));
  EXPECT_TRUE(xs_write(b.get(), t, "/lab/x", "3", 1));
  EXPECT_FALSE(xs_transaction_end(b.get(), t, false));
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(Read(a, "/lab/x"), "2");
}

TEST_F(Library, IntroduceAndReleaseFireSpecialWatches) {
  Handle dom0 = Open(0);
  ASSERT_TRUE(xs_watch(dom0.get(), "@introduceDomain", "in"));
  ASSERT_TRUE(xs_watch(dom0.get(), "@releaseDomain", "out"));
  EXPECT_EQ(Event(dom0), "@introduceDomain|in");
  EXPECT_EQ(Event(dom0), "@releaseDomain|out");
  EXPECT_FALSE(xs_is_domain_introduced(dom0.get(), 5));
  ASSERT_TRUE(xs_introduce_domain(dom0.get(), 5, 0, 1));
  EXPECT_EQ(Event(dom0), "@introduceDomain|in");
  EXPECT_TRUE(xs_is_domain_introduced(dom0.get(), 5));
  ASSERT_TRUE(xs_release_domain(dom0.get(), 5));
  EXPECT_EQ(Event(dom0), "@releaseDomain|out");
  EXPECT_FALSE(xs_is_domain_introduced(dom0.get(), 5));
}

TEST_F(Library, GuestsRelativeWatchGetsRelativeEvents) {
  store_.Run([](StoreServer& server) {
    ASSERT_TRUE(server.Write("/local/domain/5", "").ok());
    ASSERT_TRUE(server.SetPermissions("/local/domain/5", {{'n', 5}}).ok());
  });
  Handle guest = Open(5);
  ASSERT_TRUE(xs_watch(guest.get(), "device", "d"));
  EXPECT_EQ(Event(guest), "device|d");
  ASSERT_TRUE(xs_write(guest.get(), XBT_NULL, "device/x", "1", 1));
  EXPECT_EQ(Event(guest), "device/x|d");
}

TEST_F(Library, GetDomainPath) {
  Handle guest = Open(5);
  char* path = xs_get_domain_path(guest.get(), 7);
  EXPECT_STREQ(path, "/local/domain/7");
  free(path);
}

}  // namespace
}  // namespace vmsg::emu::store
