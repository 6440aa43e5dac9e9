// SPDX-License-Identifier: Apache-2.0
// The message size that the rigs' connections have negotiated. ctest runs their tests at the
// largest and once more at the least that the binding allows, because what fits a message is
// decided anew at each size.
#pragma once

#include <cstddef>
#include <cstdlib>

#include "virtio-msg/codec.h"

namespace vmsg::testing {

inline size_t TestMessageSize() {
  const char* size = std::getenv("VMSG_TEST_MESSAGE_SIZE");
  return size == nullptr ? wire::kMaxMessageSize : std::strtoul(size, nullptr, 10);
}

}  // namespace vmsg::testing
