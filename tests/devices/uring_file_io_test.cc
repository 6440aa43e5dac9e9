// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "tests/devices/uring_rig.h"

namespace vmsg::testing {
namespace {

TEST_F(UringFileIoTest, MorePiecesThanOneCallTakes) {
  const std::string path = dir_.File("f", 5000);
  const backend::UniqueFd fd = Open(path);
  std::string bytes(5000, '\0');
  std::vector<iovec> pieces;
  for (char& byte : bytes) pieces.push_back({&byte, 1});
  Operation read;
  io_->Readv(&read, fd.get(), pieces.data(), pieces.size(), 0);
  Await(read);
  EXPECT_EQ(read.result, 5000);
  EXPECT_EQ(bytes, TempDir::Content(path));
}

// A read of one byte of a pipe: in flight until the test ends it.
struct HeldRead : Operation {
  HeldRead() {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    out = backend::UniqueFd(ends[0]);
    in = backend::UniqueFd(ends[1]);
  }
  void Start(backend::AsyncFileIo& io) {
    io.Readv(this, out.get(), &piece, 1, 0);
    io.Submit();
  }
  bool End() { return write(in.get(), "x", 1) == 1; }

  backend::UniqueFd out, in;
  char byte = 0;
  iovec piece{&byte, 1};
};

// A loop that a completion woke once more for nothing would also spin for nothing.
TEST_F(UringFileIoTest, ACompletionWakesTheLoopOnce) {
  HeldRead read;
  read.Start(*io_);
  ASSERT_TRUE(loop_.Settle()) << "it sleeps until the pipe has something";
  ASSERT_TRUE(read.End());
  ASSERT_TRUE(loop_.RunUntil([&] { return read.ended(); }));
  EXPECT_EQ(read.byte, 'x');
  EXPECT_FALSE(loop_.Turn());
}

// What a guest that took over the process would like to do with a ring: a seccomp filter does not
// see it.
TEST_F(UringFileIoTest, ARingDoesNothingBesidesFileIo) {
  const backend::UniqueFd fd = Open(dir_.File("f", 4096));
  char byte = 0;
  iovec piece{&byte, 1};
  Operation read;
  io_->Readv(&read, fd.get(), &piece, 1, 0);
  Await(read);
  int rings = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    if (std::filesystem::read_symlink(entry, ignored) != "anon_inode:[io_uring]") continue;
    ++rings;
    const int ring = std::stoi(entry.path().filename());
    int none = -1;
    EXPECT_EQ(syscall(__NR_io_uring_register, ring, IORING_REGISTER_FILES, &none, 1), -1);
    EXPECT_EQ(errno, EACCES);
  }
  EXPECT_EQ(rings, 1);
}

// The kernel's own threads of this process, which do what a submission leaves to them.
std::set<std::string> KernelWorkers() {
  std::set<std::string> workers;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream name(task.path() / "comm");
    std::string comm;
    name >> comm;
    if (comm.starts_with("iou-wrk")) workers.insert(task.path().filename());
  }
  return workers;
}

// To copy hundreds of megabytes from the page cache within the submission would keep all guests of
// the thread waiting, and the watchdog would take it for dead.
TEST_F(UringFileIoTest, ALargeTransferIsNotDoneWithinTheSubmission) {
  constexpr size_t kLarge = 2 << 20;
  const backend::UniqueFd fd = Open(dir_.File("f", kLarge));
  std::string bytes(kLarge, '\0');
  // A thread of its own has no worker yet.
  std::thread([&] {
    ManualLoop loop;
    auto io = backend::NewUringFileIo(&loop);
    ASSERT_TRUE(io.ok()) << io.status();
    const auto started_by_reading = [&](size_t size) {
      const std::set<std::string> before = KernelWorkers();
      iovec pieces[] = {{bytes.data(), size / 2}, {bytes.data() + size / 2, size - size / 2}};
      Operation read;
      (*io)->Readv(&read, fd.get(), pieces, 2, 0);
      (*io)->Submit();
      EXPECT_TRUE(loop.RunUntil([&] { return read.ended(); }));
      EXPECT_EQ(read.result, static_cast<int64_t>(size));
      std::set<std::string> workers = KernelWorkers();
      for (const std::string& worker : before) workers.erase(worker);
      return workers.size();
    };
    EXPECT_EQ(started_by_reading(1 << 20), 0u);
    EXPECT_GT(started_by_reading(kLarge), 0u);
  }).join();
  EXPECT_EQ(bytes, TempDir::Content(dir_ / "f"));
}

// So that others have their turn meanwhile.
TEST_F(UringFileIoTest, ALargeTransferIsDoneInParts) {
  constexpr size_t kParts[] = {(5 << 20) + 1, 3 << 20, 2 << 20, 5, (1 << 20) - 6};
  constexpr size_t kBytes = 11 << 20;
  const backend::UniqueFd fd = Open(dir_.File("f", kBytes));
  const auto content = [&fd] {
    std::string all(kBytes, '\0');
    EXPECT_EQ(pread(fd.get(), all.data(), kBytes, 0), static_cast<ssize_t>(kBytes));
    return all;
  };
  std::string bytes(kBytes, '\0');
  std::vector<iovec> pieces;
  size_t at = 0;
  for (const size_t size : kParts) pieces.push_back({&bytes[std::exchange(at, at + size)], size});
  ASSERT_EQ(at, kBytes);
  Operation read;
  std::vector<iovec> lent = pieces;
  io_->Readv(&read, fd.get(), lent.data(), lent.size(), 0);
  io_->Submit();
  // A look that ends a part only starts the next one; a whole turn may look twice.
  while (read.transferred == 0 && !read.ended()) loop_.Look();
  EXPECT_LE(read.transferred, 4 << 20);
  ASSERT_TRUE(loop_.RunUntil([&] { return read.ended(); }));
  EXPECT_EQ(read.result, static_cast<int64_t>(kBytes));
  EXPECT_TRUE(bytes == content()) << "too long to be shown";

  std::reverse(bytes.begin(), bytes.end());
  Operation write;
  lent = pieces;
  io_->Writev(&write, fd.get(), lent.data(), lent.size(), 0, /*dsync=*/true);
  Await(write);
  EXPECT_EQ(write.result, static_cast<int64_t>(kBytes));
  EXPECT_TRUE(bytes == content()) << "too long to be shown";
}

TEST_F(UringFileIoTest, TheEndOfTheFileEndsARead) {
  const backend::UniqueFd fd = Open(dir_.File("f", 1000));
  std::string bytes(4096, '?');
  iovec piece{bytes.data(), bytes.size()};
  Operation read;
  io_->Readv(&read, fd.get(), &piece, 1, 600);
  Await(read);
  EXPECT_EQ(read.result, 400);
  EXPECT_EQ(bytes.substr(0, 400), TempDir::Content(dir_ / "f").substr(600));
  EXPECT_EQ(bytes.substr(400), std::string(3696, '?'));
  Operation behind;
  piece = {bytes.data(), bytes.size()};
  io_->Readv(&behind, fd.get(), &piece, 1, 1000);
  Await(behind);
  EXPECT_EQ(behind.result, 0);
}

TEST_F(UringFileIoTest, WritesWithAndWithoutDsyncAndSync) {
  const std::string path = dir_.File("f", 0);
  const backend::UniqueFd fd = Open(path);
  std::string bytes = "hello world!";
  iovec pieces[] = {{bytes.data(), 6}};
  iovec more[] = {{bytes.data() + 6, 6}};
  Operation first, second, sync, full;
  io_->Writev(&first, fd.get(), pieces, 1, 0, true);
  io_->Writev(&second, fd.get(), more, 1, 6, false);
  Await(first);
  Await(second);
  io_->Sync(&sync, fd.get(), true);
  io_->Sync(&full, fd.get(), false);
  Await(sync);
  Await(full);
  EXPECT_EQ(first.result, 6);
  EXPECT_EQ(second.result, 6);
  EXPECT_EQ(sync.result, 0);
  EXPECT_EQ(full.result, 0);
  EXPECT_EQ(TempDir::Content(path), bytes);
}

TEST_F(UringFileIoTest, ErrorsAreReported) {
  char byte = 0;
  iovec piece{&byte, 1};
  Operation read;
  io_->Readv(&read, -1, &piece, 1, 0);
  Await(read);
  EXPECT_EQ(read.result, -EBADF);
  const backend::UniqueFd read_only(open(dir_.File("f", 512).c_str(), O_RDONLY | O_CLOEXEC));
  Operation write;
  io_->Writev(&write, read_only.get(), &piece, 1, 0, false);
  Await(write);
  EXPECT_EQ(write.result, -EBADF);
}

TEST_F(UringFileIoTest, FarMoreOperationsThanTheRingHoldsAllEnd) {
  const backend::UniqueFd fd = Open(dir_.File("f", 512));
  constexpr size_t kOperations = 10000;
  std::vector<Operation> operations(kOperations);
  std::vector<char> bytes(kOperations);
  std::vector<iovec> pieces(kOperations);
  for (size_t i = 0; i < kOperations; ++i) {
    pieces[i] = {&bytes[i], 1};
    io_->Readv(&operations[i], fd.get(), &pieces[i], 1, i % 512);
  }
  io_->Submit();
  for (const Operation& operation : operations) {
    ASSERT_TRUE(loop_.RunUntil([&] { return operation.ended(); }));
    ASSERT_EQ(operation.result, 1);
  }
}

TEST_F(UringFileIoTest, ACompletionMayStartTheNextOperation) {
  const backend::UniqueFd fd = Open(dir_.File("f", 512));
  struct Chained : backend::FileOperation {
    backend::AsyncFileIo* io;
    int file;
    int left = 1000;
    char byte;
    iovec piece;
  } chained;
  chained.io = io_.get();
  chained.file = fd.get();
  chained.done = [](backend::FileOperation* operation, int64_t) {
    auto* self = static_cast<Chained*>(operation);
    if (--self->left == 0) return;
    self->piece = {&self->byte, 1};
    self->io->Readv(self, self->file, &self->piece, 1, 0);
  };
  chained.piece = {&chained.byte, 1};
  io_->Readv(&chained, fd.get(), &chained.piece, 1, 0);
  io_->Submit();
  EXPECT_TRUE(loop_.RunUntil([&] { return chained.left == 0; }));
}

// Whether a thread of this process waits in the kernel for completions.
bool WaitsForCompletions(pid_t thread) {
  std::ifstream call("/proc/self/task/" + std::to_string(thread) + "/syscall");
  std::string number;
  call >> number;
  return number == std::to_string(__NR_io_uring_enter);
}

// The kernel may write to a buffer until its read has ended.
TEST_F(UringFileIoTest, DestructionWaitsForWhatIsInFlight) {
  HeldRead read;
  read.Start(*io_);
  std::atomic<bool> returned = false;
  bool written = false;
  std::thread writer([&, destroyer = gettid()] {
    while (!returned && !WaitsForCompletions(destroyer)) std::this_thread::yield();
    if (!returned) written = read.End();
  });
  io_.reset();
  returned = true;
  writer.join();
  EXPECT_TRUE(written) << "it did not wait";
  EXPECT_EQ(read.byte, 'x');
  EXPECT_FALSE(read.ended());
}

TEST_F(UringFileIoTest, DestructionWaitsForTheKernelAndCallsNothing) {
  const backend::UniqueFd fd = Open(dir_.File("f", 512));
  constexpr size_t kOperations = 1000;
  std::vector<Operation> operations(kOperations);
  auto bytes = std::make_unique<char[]>(kOperations);
  std::vector<iovec> pieces(kOperations);
  for (size_t i = 0; i < kOperations; ++i) {
    pieces[i] = {&bytes[i], 1};
    io_->Readv(&operations[i], fd.get(), &pieces[i], 1, i % 512);
  }
  io_->Submit();
  io_.reset();
  bytes.reset();  // the kernel no longer writes to it
  for (const Operation& operation : operations) EXPECT_FALSE(operation.ended());
  EXPECT_EQ(loop_.watch_count(), 0u);
}

TEST_F(UringFileIoTest, AnIdleRingAsksForNothing) {
  const backend::UniqueFd fd = Open(dir_.File("f", 512));
  char byte;
  iovec piece{&byte, 1};
  Operation read;
  io_->Readv(&read, fd.get(), &piece, 1, 0);
  Await(read);
  EXPECT_TRUE(loop_.Settle()) << "a busy loop";
}

TEST_F(UringFileIoTest, MayBeMadeOnAnotherThreadThanTheOneThatUsesIt) {
  const backend::UniqueFd fd = Open(dir_.File("f", 512));
  int64_t result = 0;
  std::thread io_thread([&] {
    char byte;
    iovec piece{&byte, 1};
    Operation read;
    io_->Readv(&read, fd.get(), &piece, 1, 0);
    io_->Submit();
    EXPECT_TRUE(loop_.RunUntil([&] { return read.ended(); }));
    result = read.result;
    io_.reset();
  });
  io_thread.join();
  EXPECT_EQ(result, 1);
}

struct CountingListener : backend::BatchListener {
  int batches = 0;
  std::function<void()> then;
  void OnBatchEnd() override {
    ++batches;
    if (then) then();
  }
};

TEST_F(UringFileIoTest, AListenerIsToldOncePerBatch) {
  CountingListener listener;
  io_->NotifyAtBatchEnd(&listener);
  io_->NotifyAtBatchEnd(&listener);
  EXPECT_TRUE(loop_.Settle());
  EXPECT_EQ(listener.batches, 1);
}

TEST_F(UringFileIoTest, AListenerMayForgetAnotherAndItself) {
  CountingListener first, second;
  first.then = [&] {
    io_->ForgetBatchListener(&second);
    io_->ForgetBatchListener(&first);
  };
  io_->NotifyAtBatchEnd(&first);
  io_->NotifyAtBatchEnd(&second);
  EXPECT_TRUE(loop_.Settle());
  EXPECT_EQ(first.batches, 1);
  EXPECT_EQ(second.batches, 0);
}

}  // namespace
}  // namespace vmsg::testing
