// SPDX-License-Identifier: Apache-2.0
// A capture of messages: a pcap file (nanosecond times, link type USER0) that Wireshark's tools can
// carry around. Pure functions on bytes; reading accepts any bytes. The packet is
//   u8 direction, u8 zero, le16 frontend domain, le32 bus id, the message without padding.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"

namespace vmsg::wire {

inline constexpr size_t kCaptureFileHeaderSize = 24;
inline constexpr size_t kCapturePacketHeaderSize = 24;  // pcap's 16 and our 8
inline constexpr size_t kMaxCapturedMessage = 65535;    // what msg_size can say

enum class CaptureDirection : uint8_t { kDriverToDevice = 0, kDeviceToDriver = 1 };

struct CapturedMessage {
  uint64_t time_ns = 0;  // since 1970, until 2106
  CaptureDirection direction = CaptureDirection::kDriverToDevice;
  uint16_t frontend = 0;  // domain id
  uint32_t bus = 0;
  // When writing: at most kMaxCapturedMessage bytes (what is over is not written).
  std::span<const std::byte> message;
};

// Writing: the file header once, then for each message its packet header and the message's bytes.
std::array<std::byte, kCaptureFileHeaderSize> CaptureFileHeader();
std::array<std::byte, kCapturePacketHeaderSize> CapturePacketHeader(const CapturedMessage& message);

// What a file header said about the packets that follow.
struct CaptureFormat {
  bool nanoseconds = true;  // otherwise microseconds
};

// Reading. InvalidArgument: not a pcap file, or one of another byte order or link type.
absl::StatusOr<CaptureFormat> ParseCaptureFileHeader(
    std::span<const std::byte, kCaptureFileHeaderSize> header);

struct CapturePacket {
  CapturedMessage captured;  // `message` points into the bytes that were parsed
  size_t size = 0;           // bytes the packet takes, header included
};

// The packet that `bytes` begins with; nullopt when they end before it does (at most
// kCapturePacketHeaderSize + kMaxCapturedMessage bytes are ever needed). InvalidArgument: a length
// that no packet of ours has, or a direction other than 0 or 1; what follows cannot be trusted.
absl::StatusOr<std::optional<CapturePacket>> ParseCapturePacket(const CaptureFormat& format,
                                                                std::span<const std::byte> bytes);

}  // namespace vmsg::wire
