// SPDX-License-Identifier: Apache-2.0
// A guest whose ring and window stay granted, so that a test can have the backend's side of its
// bus come and go quickly.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <span>

#include "grants/directory.h"
#include "grants/event_channels.h"
#include "grants/grant_sharer.h"
#include "tests/emulated-xen/emulated_xen.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::testing {

class ConnectingGuest {
 public:
  static constexpr uint32_t kWindowPages = 16;
  static constexpr uint32_t kRingOrder = 1;
  static constexpr long kGrants = 1 + (1 << kRingOrder) + kWindowPages + 1;

  explicit ConnectingGuest(test::EmulatedXen& xen, uint32_t window_pages = kWindowPages,
                           uint32_t ring_order = kRingOrder) {
    domain_ = *xen.CreateDomain();
    platform_ = *xen.OpenPlatform(domain_);
    sharer_ = *platform_->OpenGrantSharer();
    events_ = *platform_->OpenEventChannels();
    interface_page_ = Share(1);
    ring_pages_ = Share(size_t{1} << ring_order);
    window_ = Share(window_pages);
    directory_ = Share(grants::DirectoryPagesFor(window_pages));
    port_ = *events_->AllocateUnbound(0);
    EXPECT_TRUE(grants::WriteDirectory(window_.refs(), directory_.bytes(), directory_.refs()).ok());
    interface().ring_order = ring_order;
    std::copy(ring_pages_.refs().begin(), ring_pages_.refs().end(), interface().ref);
  }

  grants::DomainId domain() const { return domain_; }
  grants::EventPort port() const { return port_; }
  grants::GrantRef ring_ref() const { return interface_page_.refs().front(); }
  grants::GrantRef directory_ref() const { return directory_.refs().front(); }

  // As the frontend of a new connection: cursors at 0, a PING in the ring.
  void StartOver() {
    std::memset(&interface(), 0, 2 * sizeof(wire::RingDirection));
    const std::span<std::byte> ring = ring_pages_.bytes();
    wire::RingProducer producer(&interface().out, ring.last(ring.size() / 2), true);
    std::byte record[16] = {};
    auto size = wire::Encode(wire::Profile::V1(), {0, 1}, wire::PingRequest{42}, record);
    ASSERT_TRUE(size.ok()) << size.status();
    ASSERT_TRUE(*producer.Push(std::span(record).first(*size)));
    (void)producer.Publish();
  }
  // The backend has answered it.
  bool Answered() { return std::atomic_ref(interface().in.prod).load() != 0; }

 private:
  grants::SharedPages Share(size_t pages) {
    return *sharer_->Share(0, pages, grants::Access::kReadWrite);
  }
  wire::RingInterface& interface() {
    return *reinterpret_cast<wire::RingInterface*>(interface_page_.bytes().data());
  }

  grants::DomainId domain_ = 0;
  std::unique_ptr<grants::Platform> platform_;
  std::unique_ptr<grants::GrantSharer> sharer_;
  std::unique_ptr<grants::EventChannels> events_;
  grants::SharedPages interface_page_, ring_pages_, window_, directory_;
  grants::EventPort port_ = 0;
};

}  // namespace vmsg::testing
