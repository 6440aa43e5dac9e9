// SPDX-License-Identifier: Apache-2.0
// nbdkit-vmsg-plugin: a guest's virtio-msg disk as an NBD export, so that any NBD client drives the
// bus. Keys: xen=, bus=, dev=, pages=, wait= (as vmsg-frontend's options).
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "text/foreign_text.h"
#include "tools/nbdkit-vmsg/disk_pump.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

// The pump takes requests from any thread and keeps several in flight.
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

namespace {

using vmsg::nbd::DiskPump;
using vmsg::nbd::PumpOptions;

// A disk of the kernel's waits for its backend until there is one; so does this one.
PumpOptions options = {.xen = "",
                       .connect = {.patience = vmsg::frontend::Clock::duration::max()},
                       .device = std::nullopt};
// One disk for all connections, from after_fork to cleanup; another one once it was removed or had
// failed, for those who connect then.
std::mutex pump_mutex;
std::shared_ptr<DiskPump> pump;
std::thread watcher;

using Connection = std::shared_ptr<DiskPump>;
DiskPump& PumpOf(void* handle) { return **static_cast<Connection*>(handle); }

int Report(const absl::Status& status) {
  if (status.ok()) return 0;
  // Reasons come from another domain.
  nbdkit_error("%s", vmsg::CleanText(status.message()).c_str());
  nbdkit_set_error(absl::IsUnavailable(status) ? ESHUTDOWN : EIO);
  return -1;
}

int Config(const char* key, const char* value) {
  const std::string name = key;
  if (name == "xen") {
    options.xen = value;
    // nbdkit changes to / when it goes into the background.
    constexpr char kEmulated[] = "emulated:";
    if (options.xen.rfind(kEmulated, 0) == 0) {
      char* const path = nbdkit_absolute_path(value + std::strlen(kEmulated));
      if (path == nullptr) return -1;
      options.xen = kEmulated + std::string(path);
      std::free(path);
    }
    return 0;
  }
  uint32_t number = 0;
  if (name == "bus") {
    if (nbdkit_parse_uint32_t(key, value, &number) != 0) return -1;
    options.connect.bus_id = number;
    return 0;
  }
  if (name == "pages") {
    if (nbdkit_parse_uint32_t(key, value, &number) != 0) return -1;
    options.connect.pages = number;
    return 0;
  }
  if (name == "wait") {
    if (nbdkit_parse_uint32_t(key, value, &number) != 0) return -1;
    options.connect.patience = std::chrono::seconds(number);
    return 0;
  }
  if (name == "dev") {
    uint16_t device = 0;
    if (nbdkit_parse_uint16_t(key, value, &device) != 0) return -1;
    options.device = device;
    return 0;
  }
  nbdkit_error("unknown key '%s': xen, bus, dev, pages and wait are known", key);
  return -1;
}

// Requests that wait for a backend would keep nbdkit from ending: it waits for them.
void EndWithNbdkit() {
  while (nbdkit_nanosleep(3600, 0) == 0) {
  }
  const std::lock_guard lock(pump_mutex);
  if (pump != nullptr) pump->Stop();
}

absl::Status StartPump() {
  absl::StatusOr<std::unique_ptr<DiskPump>> started = DiskPump::Start(options);
  if (!started.ok()) return started.status();
  pump = *std::move(started);
  return absl::OkStatus();
}

// After the fork, because threads and grants do not survive one.
int AfterFork() {
  options.connect.notice = [](absl::string_view text) {
    std::fprintf(stderr, "nbdkit-vmsg: %s\n", std::string(text).c_str());
  };
  if (absl::Status status = StartPump(); !status.ok()) return Report(status);
  watcher = std::thread(EndWithNbdkit);
  return 0;
}

void Cleanup() {
  if (watcher.joinable()) watcher.join();
  pump.reset();
}

void* Open(int) {
  const std::lock_guard lock(pump_mutex);
  if (pump == nullptr || pump->dead()) {
    // The bus first: two connections to it at once are none.
    if (pump.use_count() > 1) {
      nbdkit_error("the disk is gone, and other clients still hold it");
      return nullptr;
    }
    pump.reset();
    if (absl::Status status = StartPump(); !status.ok()) {
      Report(status);
      return nullptr;
    }
  }
  return new Connection(pump);
}

void Close(void* handle) {
  const std::lock_guard lock(pump_mutex);
  delete static_cast<Connection*>(handle);
}

int64_t GetSize(void* handle) { return static_cast<int64_t>(PumpOf(handle).capacity()); }
int CanWrite(void* handle) { return PumpOf(handle).limits().read_only ? 0 : 1; }
int CanFlush(void*) { return 1; }
int CanFua(void*) { return NBDKIT_FUA_EMULATE; }
int CanMultiConn(void*) { return 1; }  // one disk and one flush for all connections

int BlockSize(void*, uint32_t* minimum, uint32_t* preferred, uint32_t* maximum) {
  *minimum = 512;
  *preferred = 4096;
  *maximum = 0xffffffff;
  return 0;
}

bool Aligned(uint32_t count, uint64_t offset) {
  if (count % 512 == 0 && offset % 512 == 0) return true;
  nbdkit_error("%u bytes at %llu: the disk takes multiples of 512 (use --filter=blocksize)", count,
               static_cast<unsigned long long>(offset));
  nbdkit_set_error(EINVAL);
  return false;
}

int Pread(void* handle, void* buffer, uint32_t count, uint64_t offset, uint32_t) {
  if (!Aligned(count, offset)) return -1;
  return Report(PumpOf(handle).Read(offset, std::span(static_cast<std::byte*>(buffer), count)));
}

int Pwrite(void* handle, const void* buffer, uint32_t count, uint64_t offset, uint32_t) {
  if (!Aligned(count, offset)) return -1;
  return Report(
      PumpOf(handle).Write(offset, std::span(static_cast<const std::byte*>(buffer), count)));
}

int FlushDisk(void* handle, uint32_t) { return Report(PumpOf(handle).Flush()); }

nbdkit_plugin MakePlugin() {
  nbdkit_plugin p = {};
  p.name = "vmsg";
  p.longname = "virtio-msg disk";
  p.description = "a block device of a virtio-msg bus on Xen";
  p.magic_config_key = "xen";
  p.config = Config;
  p.config_help =
      "xen=native|emulated:DIR   the Xen this domain runs on\n"
      "bus=N                     bus instance (default 0)\n"
      "dev=N                     device number (default: the first block device)\n"
      "pages=N                   window in 4 KiB pages\n"
      "wait=SECONDS              for a backend that is gone (default: until there is one)";
  p.after_fork = AfterFork;
  p.cleanup = Cleanup;
  p.open = Open;
  p.close = Close;
  p.get_size = GetSize;
  p.can_write = CanWrite;
  p.can_flush = CanFlush;
  p.can_fua = CanFua;
  p.can_multi_conn = CanMultiConn;
  p.block_size = BlockSize;
  p.pread = Pread;
  p.pwrite = Pwrite;
  p.flush = FlushDisk;
  p.errno_is_preserved = 0;
  return p;
}

nbdkit_plugin plugin = MakePlugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(plugin)
