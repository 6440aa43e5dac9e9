// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "tests/contract/xen_under_test.h"

namespace vmsg::test {

// The next pending port, 0 for none.
inline grants::EventPort NextPort(grants::EventChannels& events) {
  auto pending = events.NextPending();
  EXPECT_TRUE(pending.ok()) << pending.status();
  return pending.ok() && pending->has_value() ? **pending : 0;
}

// A port allocated by the guest and bound by the backend, its spurious first event taken.
class EventPairContract : public EventContract {
 protected:
  void SetUp() override {
    EventContract::SetUp();
    guest_ = Events(xen_->guest);
    backend_ = Events(xen_->backend);
    auto port = guest_->AllocateUnbound(xen_->backend.id);
    ASSERT_TRUE(port.ok()) << port.status();
    guest_port_ = *port;
    BindBackend();
  }

  void BindBackend() {
    auto port = backend_->BindInterdomain(xen_->guest.id, guest_port_);
    ASSERT_TRUE(port.ok()) << port.status();
    backend_port_ = *port;
    ASSERT_TRUE(BecomesReadable(backend_->fd()));
    ASSERT_EQ(NextPort(*backend_), backend_port_);
    ASSERT_TRUE(backend_->Unmask(backend_port_).ok());
    ASSERT_EQ(NextPort(*backend_), 0u);
  }

  std::unique_ptr<grants::EventChannels> guest_;
  std::unique_ptr<grants::EventChannels> backend_;
  grants::EventPort guest_port_ = 0;
  grants::EventPort backend_port_ = 0;
};

}  // namespace vmsg::test
