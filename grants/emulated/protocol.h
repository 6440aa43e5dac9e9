// SPDX-License-Identifier: Apache-2.0
// What a program says to xen-emu over D/hypervisor (Dom0) or D/domains/<domid>/hypervisor.
//
// A stream socket carries frames: a FrameHeader, then `size - sizeof(FrameHeader)` bytes. A request
// is answered by exactly one reply with the same operation, except the two one-way requests
// (kUnmap, kUnshare). One request is outstanding at a time. File descriptors travel with the first
// byte of a reply. A connection stands for one open handle (/dev/xen/gntdev, gntalloc, evtchn):
// when it closes, for whatever reason, all it mapped, granted and bound ends. Both ends run on one
// machine: integers are in its own byte order.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "grants/xen_types.h"

namespace vmsg::emu {

enum class Operation : uint16_t {
  kMap = 1,
  kUnmap = 2,  // one-way
  kShare = 3,
  kUnshare = 4,  // one-way
  kOpenEvents = 5,
  kAllocateUnbound = 6,
  kBindInterdomain = 7,
  kQueryPeer = 8,
  kUnbind = 9,
  kOpenReleases = 10,
  kListDomains = 11,  // Dom0's socket only
  kCopy = 12,
  kCommand = 32,  // text in, text out; Dom0's socket only
};

constexpr bool IsOneWay(Operation operation) {
  return operation == Operation::kUnmap || operation == Operation::kUnshare;
}

struct FrameHeader {
  uint32_t size;       // of the whole frame
  uint16_t operation;  // Operation
  uint16_t status;     // replies: an absl::StatusCode; when it is not OK the body is its message
};

// gntdev's module parameter `limit`: pages of one map request.
inline constexpr uint32_t kMaxMapPages = 65536;
inline constexpr uint32_t kMaxFileDescriptors = 3;

struct MapRequest {
  grants::DomainId domain;
  uint16_t writable;
  uint32_t count;         // grant references that follow
  uint64_t known_memory;  // serial of the memory whose file the caller already has, 0 = none
};

// Answered with the page's bytes.
struct CopyRequest {
  grants::DomainId domain;
  uint16_t reserved;
  grants::GrantRef ref;
};

// Page frames of a domain's memory file, consecutive.
struct FrameRun {
  uint32_t first;
  uint32_t pages;
};

struct MapReply {
  uint64_t mapping;  // for kUnmap
  uint64_t memory;   // serial of the domain's memory; its file follows when the caller lacks it
  uint32_t runs;     // FrameRuns that follow, in the order of the references
  uint32_t reserved;
};

struct ShareRequest {
  grants::DomainId with;
  uint16_t writable;
  uint32_t pages;
  uint64_t known_memory;
};

struct ShareReply {
  uint64_t share;  // for kUnshare
  uint64_t memory;
  uint32_t runs;  // FrameRuns that follow, then as many grant references as there are pages
  uint32_t pages;
};

// kUnmap, kUnshare.
struct ReleaseRequest {
  uint64_t id;
};

// The reply to kOpenReleases is empty; with it comes the file of this page. A mapping that is
// written to the page is released without a message: xen-emu empties the page before it serves
// anybody's next request, and nobody can see the difference. The handle writes ids to the slots in
// turn, each once it is 0 again (until then it uses kUnmap); xen-emu sets them to 0, in turn too.
struct ReleasePage {
  static constexpr uint32_t kSlots = 512;
  uint64_t ids[kSlots];

  std::atomic_ref<uint64_t> slot(uint32_t n) { return std::atomic_ref<uint64_t>(ids[n % kSlots]); }
};

// The reply to kOpenEvents is empty; with it come: event page, control page, eventfd.

struct PortRequest {  // kAllocateUnbound: remote; kBindInterdomain: both; others: port
  grants::EventPort port;
  grants::DomainId remote;
  uint16_t reserved;
};

// With a connected peer come its event page and its eventfd.
struct PortReply {
  grants::EventPort port;
  uint32_t slot;         // of this handle
  uint32_t generation;   // the slot's when this was written
  uint32_t peer_slot;    // of the peer's handle
  uint64_t peer_handle;  // 0: no peer
};

// The reply to kListDomains: as many as there are, by ascending domid.
struct ListedDomain {
  grants::DomainId id;
  uint8_t dying;
  uint8_t shut_down;
};

inline constexpr uint32_t kMaxFrameSize =
    sizeof(FrameHeader) + sizeof(MapRequest) + kMaxMapPages * sizeof(grants::GrantRef);
inline constexpr uint32_t kMaxReplySize =
    sizeof(FrameHeader) + sizeof(ShareReply) +
    kMaxMapPages * (sizeof(FrameRun) + sizeof(grants::GrantRef));
inline constexpr uint32_t kMaxCommandSize = 4096;

static_assert(sizeof(FrameHeader) == 8 && sizeof(MapRequest) == 16 && sizeof(MapReply) == 24);
static_assert(sizeof(ShareRequest) == 16 && sizeof(ShareReply) == 24 && sizeof(FrameRun) == 8);
static_assert(sizeof(PortRequest) == 8 && sizeof(PortReply) == 24 && sizeof(ListedDomain) == 4);

inline constexpr char kHypervisorSocket[] = "hypervisor";
inline constexpr char kStoreSocket[] = "xenstored";
// An empty file, for Platform::lock_path.
inline constexpr char kServerLock[] = "server.lock";

}  // namespace vmsg::emu
