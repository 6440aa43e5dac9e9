// SPDX-License-Identifier: Apache-2.0
// vmsg-decode: prints a capture of messages, or a raw stream of padded records, one line each.
#include <fcntl.h>
#include <getopt.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "text/foreign_text.h"
#include "tools/program/program.h"
#include "virtio-msg/capture.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/describe.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg {
namespace {

constexpr char kUsage[] =
    "Usage: vmsg-decode [--raw] FILE|-\n"
    "Prints virtio-msg messages, one line each: names and fields.\n"
    "  FILE    a capture written by vmsgd --trace (pcap); - reads standard input\n"
    "  --raw   FILE holds bare records, each padded to 8 bytes: a stream or a ring's memory\n"
    "  --help  this text; --version the program's version\n"
    "A line of a capture: seconds since the first message, guest domain/bus, direction\n"
    "(-> driver to device, <- device to driver), message. A line of a raw stream begins with\n"
    "the record's offset. What cannot be read is printed as malformed, with the reason and hex.\n"
    "Exit status: 0; 1 if the input cannot be read or ends in the middle; 2 for bad usage.\n";

// A window on the input that holds only what is being parsed.
class Input {
 public:
  explicit Input(int fd) : fd_(fd) {}

  // Has at least `size` bytes ready, or all that are left of the input.
  absl::StatusOr<std::span<const std::byte>> Peek(size_t size) {
    if (buffer_.size() - begin_ < size) {
      buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(begin_));
      begin_ = 0;
      while (buffer_.size() < size) {
        const size_t old = buffer_.size();
        buffer_.resize(std::max(size, old + kChunk));
        const ssize_t got = read(fd_, buffer_.data() + old, buffer_.size() - old);
        buffer_.resize(old + (got > 0 ? static_cast<size_t>(got) : 0));
        if (got == 0) break;
        if (got < 0 && errno != EINTR) {
          return absl::UnavailableError(absl::StrCat("cannot read: ", std::strerror(errno)));
        }
      }
    }
    return std::span<const std::byte>(buffer_).subspan(begin_);
  }

  void Skip(size_t size) {
    begin_ += size;
    offset_ += size;
  }
  uint64_t offset() const { return offset_; }

 private:
  static constexpr size_t kChunk = size_t{64} * 1024;
  int fd_;
  std::vector<std::byte> buffer_;
  size_t begin_ = 0;
  uint64_t offset_ = 0;
};

absl::Status PrintCapture(Input& input) {
  const wire::Profile& profile = wire::Profile::V1();
  absl::StatusOr<std::span<const std::byte>> bytes = input.Peek(wire::kCaptureFileHeaderSize);
  if (!bytes.ok()) return bytes.status();
  if (bytes->size() < wire::kCaptureFileHeaderSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a capture: ", bytes->size(), " bytes, pcap's header alone has ",
                     wire::kCaptureFileHeaderSize, " (is it --raw?)"));
  }
  const absl::StatusOr<wire::CaptureFormat> format =
      wire::ParseCaptureFileHeader(bytes->first<wire::kCaptureFileHeaderSize>());
  if (!format.ok()) return format.status();
  input.Skip(wire::kCaptureFileHeaderSize);

  bool first = true;
  uint64_t start = 0;
  while (true) {
    // First what is there at once, so that a live trace is printed as it comes.
    size_t need = wire::kCapturePacketHeaderSize;
    absl::StatusOr<std::optional<wire::CapturePacket>> packet = std::nullopt;
    while (true) {
      bytes = input.Peek(need);
      if (!bytes.ok()) return bytes.status();
      packet = wire::ParseCapturePacket(*format, *bytes);
      if (!packet.ok() || packet->has_value() || bytes->size() < need) break;
      need = bytes->size() + 1;
    }
    if (!packet.ok()) {
      return absl::Status(packet.status().code(), absl::StrCat("at offset ", input.offset(), ": ",
                                                               packet.status().message()));
    }
    if (!packet->has_value()) {
      if (bytes->empty()) return absl::OkStatus();
      return absl::DataLossError(
          absl::StrCat("the capture ends inside the packet at offset ", input.offset()));
    }
    const wire::CapturedMessage& captured = (*packet)->captured;
    if (first) start = captured.time_ns;
    first = false;
    // Threads take their times before they write, so a message can be a little older than the one
    // before it, even than the first.
    const bool before = captured.time_ns < start;
    const uint64_t ns = before ? start - captured.time_ns : captured.time_ns - start;
    const bool from_driver = captured.direction == wire::CaptureDirection::kDriverToDevice;
    const std::string text = wire::Describe(
        profile, captured.message, from_driver ? wire::Sender::kDriver : wire::Sender::kDevice);
    std::printf("%s%" PRIu64 ".%06" PRIu64 " g%u/%u %s %s\n", before ? "-" : "", ns / 1'000'000'000,
                ns % 1'000'000'000 / 1000, unsigned{captured.frontend}, unsigned{captured.bus},
                from_driver ? "->" : "<-", text.c_str());
    input.Skip((*packet)->size);
  }
}

absl::Status PrintRaw(Input& input) {
  const wire::Profile& profile = wire::Profile::V1();
  constexpr size_t kWord = 8;
  while (true) {
    absl::StatusOr<std::span<const std::byte>> bytes = input.Peek(wire::kHeaderSize);
    if (!bytes.ok()) return bytes.status();
    if (bytes->empty()) return absl::OkStatus();
    if (bytes->size() < wire::kHeaderSize) {
      return absl::DataLossError(
          absl::StrCat("the input ends inside the record at offset ", input.offset()));
    }
    const auto header = bytes->first<wire::kHeaderSize>();
    if (std::all_of(header.begin(), header.end(), [](std::byte b) { return b == std::byte{0}; })) {
      input.Skip(kWord);  // memory of a ring that was not used yet
      continue;
    }
    const size_t msg_size = std::to_integer<size_t>(header[6]) | std::to_integer<size_t>(header[7])
                                                                     << 8;
    // A record whose length cannot be true is skipped by one word: records start on those.
    const bool plausible = msg_size >= wire::kHeaderSize && msg_size <= wire::kMaxMessageSize;
    const size_t size = plausible ? wire::PaddedRecordSize(msg_size) : kWord;
    bytes = input.Peek(size);
    if (!bytes.ok()) return bytes.status();
    if (bytes->size() < msg_size && plausible) {
      return absl::DataLossError(absl::StrCat("the input ends inside the record at offset ",
                                              input.offset(), ", which has ", msg_size, " bytes"));
    }
    const std::span<const std::byte> record = bytes->first(std::min(size, bytes->size()));
    std::printf("0x%04" PRIx64 " %s\n", input.offset(), wire::Describe(profile, record).c_str());
    input.Skip(record.size());
  }
}

int Main(int argc, char** argv) {
  bool raw = false;
  const option options[] = {{"raw", no_argument, nullptr, 'r'},
                            {"help", no_argument, nullptr, 'h'},
                            {nullptr, 0, nullptr, 0}};
  for (int c; (c = getopt_long(argc, argv, "h", options, nullptr)) != -1;) {
    switch (c) {
      case 'r':
        raw = true;
        break;
      case 'h':
        std::fputs(kUsage, stdout);
        return 0;
      default:
        std::fputs(kUsage, stderr);
        return 2;
    }
  }
  if (optind + 1 != argc) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const char* path = argv[optind];
  const bool standard_input = std::strcmp(path, "-") == 0;
  const int fd = standard_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    std::fprintf(stderr, "vmsg-decode: cannot open %s: %s\n", CleanText(path).c_str(),
                 std::strerror(errno));
    return 1;
  }
  // A live trace is read line by line.
  setvbuf(stdout, nullptr, _IOLBF, 0);
  Input input(fd);
  const absl::Status status = raw ? PrintRaw(input) : PrintCapture(input);
  if (!standard_input) close(fd);
  if (!status.ok()) {
    std::fflush(stdout);
    std::fprintf(stderr, "vmsg-decode: %s: %s\n", CleanText(path).c_str(),
                 CleanText(status.message()).c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace vmsg

int main(int argc, char** argv) { return vmsg::RunProgram("vmsg-decode", argc, argv, vmsg::Main); }
