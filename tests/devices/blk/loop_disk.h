// SPDX-License-Identifier: Apache-2.0
// A loop device of this machine's kernel on a file, for one test.
#pragma once

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "backend/devices/unique_fd.h"

namespace vmsg::testing {

class LoopDisk {
 public:
  // `why_not` is set where the machine does not allow it.
  LoopDisk(const std::string& file, bool read_only, uint32_t block = 512) {
    const backend::UniqueFd control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const backend::UniqueFd backing(
        open(file.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!control || !backing) {
      why_not = std::string("no loop devices here: ") + std::strerror(errno);
      return;
    }
    // Another process may take the free one first.
    for (int tries = 0; tries < 100; ++tries) {
      const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
      path_ = "/dev/loop" + std::to_string(number);
      fd_ = backend::UniqueFd(open(path_.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
      loop_config config = {};
      config.block_size = block;
      config.fd = static_cast<__u32>(backing.get());
      config.info.lo_flags = read_only ? LO_FLAGS_READ_ONLY : 0;
      if (number >= 0 && fd_ && ioctl(fd_.get(), LOOP_CONFIGURE, &config) == 0) return;
      if (errno != EBUSY) break;
    }
    why_not = std::string("no loop device here: ") + std::strerror(errno);
    fd_ = backend::UniqueFd();
  }
  ~LoopDisk() {
    if (fd_) ioctl(fd_.get(), LOOP_CLR_FD);
  }
  const std::string& path() const { return path_; }

  std::string why_not;

 private:
  std::string path_;
  backend::UniqueFd fd_;
};

}  // namespace vmsg::testing
