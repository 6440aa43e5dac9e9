// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/bus/claim/bus_claim.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "text/foreign_text.h"

namespace vmsg::frontend {
namespace {

constexpr char kNativeLocks[] = "/run/virtio-msg";
constexpr size_t kMaxHolderText = 128;

std::string LockPath(const ClaimPlaces& places, uint32_t bus_id) {
  return absl::StrCat(places.lock_directory, "/frontend-bus-", bus_id, ".lock");
}

struct flock WholeFile(short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

// The driver of the kernel that is bound to the bus; empty: none.
std::string KernelDriver(const ClaimPlaces& places, uint32_t bus_id) {
  if (places.sysfs.empty()) return "";
  const std::string link =
      absl::StrCat(places.sysfs, "/bus/xen/devices/virtio-msg-", bus_id, "/driver");
  std::array<char, PATH_MAX> target;
  const ssize_t size = ::readlink(link.c_str(), target.data(), target.size());
  if (size <= 0) return "";
  const std::string path(target.data(), static_cast<size_t>(size));
  return path.substr(path.rfind('/') + 1);
}

std::string KernelText(const std::string& driver) {
  return absl::StrCat("this kernel (its driver ", driver, ")");
}

// "nbdkit (pid 12)", as the holder wrote it after it had taken the lock.
std::string HolderText(int fd) {
  std::array<char, kMaxHolderText> bytes;
  const ssize_t size = ::pread(fd, bytes.data(), bytes.size(), 0);
  std::string text(bytes.data(), size > 0 ? static_cast<size_t>(size) : 0);
  absl::StripAsciiWhitespace(&text);
  return text.empty() ? "another program that has just begun" : CleanText(text, kMaxHolderText);
}

void WriteHolder(int fd) {
  std::array<char, 32> name{};
  const int comm = ::open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
  if (comm >= 0) {
    [[maybe_unused]] const ssize_t size = ::read(comm, name.data(), name.size() - 1);
    ::close(comm);
  }
  const std::string text =
      absl::StrCat(absl::StripAsciiWhitespace(name.data()), " (pid ", ::getpid(), ")\n");
  // For people only: the lock is what counts.
  [[maybe_unused]] const int cut = ::ftruncate(fd, 0);
  [[maybe_unused]] const ssize_t written = ::pwrite(fd, text.data(), text.size(), 0);
}

absl::Status InUse(uint32_t bus_id, const std::string& holder) {
  return absl::UnavailableError(absl::StrCat(
      "bus ", bus_id, " of this domain is in use by ", holder,
      ": two at once would take it from each other. End that program, or let it have the bus"));
}

}  // namespace

ClaimPlaces ClaimPlaces::Of(const grants::Platform& platform) {
  const std::string name = platform.name();
  absl::string_view directory = name;
  if (absl::ConsumePrefix(&directory, "emulated:")) {
    return {.lock_directory = std::string(directory), .sysfs = ""};
  }
  return {.lock_directory = kNativeLocks, .sysfs = "/sys"};
}

absl::StatusOr<BusClaim> BusClaim::Take(const ClaimPlaces& places, uint32_t bus_id) {
  if (const std::string driver = KernelDriver(places, bus_id); !driver.empty()) {
    return absl::UnavailableError(absl::StrCat(
        "bus ", bus_id, " of this domain is in use by ", KernelText(driver), "; `echo virtio-msg-",
        bus_id, " > ", places.sysfs, "/bus/xen/drivers/", driver, "/unbind` takes it from it"));
  }
  const std::string path = LockPath(places, bus_id);
  // Missing in a small initramfs. What is wrong with it shows when the file is opened.
  if (places.lock_directory.rfind("/run/", 0) == 0) ::mkdir("/run", 0755);
  ::mkdir(places.lock_directory.c_str(), 0755);
  // Nobody else's: who may only read it may lock it, too.
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("open ", path, ", by whose lock one program of a domain has a bus"));
  }
  BusClaim claim(fd);
  // Of the open file, not of the process: also against another connection in this one.
  struct flock lock = WholeFile(F_WRLCK);
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) {
    WriteHolder(fd);
    return claim;
  }
  if (errno == EAGAIN || errno == EACCES) return InUse(bus_id, HolderText(fd));
  return absl::ErrnoToStatus(errno, absl::StrCat("lock ", path));
}

absl::StatusOr<std::optional<std::string>> BusClaim::Holder(const ClaimPlaces& places,
                                                            uint32_t bus_id) {
  if (const std::string driver = KernelDriver(places, bus_id); !driver.empty()) {
    return KernelText(driver);
  }
  const std::string path = LockPath(places, bus_id);
  // Whatever it is, looking at it waits for nobody.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT) return std::nullopt;
    return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  }
  const BusClaim closes(fd);
  struct flock lock = WholeFile(F_WRLCK);
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("look for a lock on ", path));
  }
  if (lock.l_type == F_UNLCK) return std::nullopt;
  return HolderText(fd);
}

BusClaim::~BusClaim() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace vmsg::frontend
