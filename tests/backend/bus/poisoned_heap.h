// SPDX-License-Identifier: Apache-2.0
// A program with poisoned_heap.cc gets memory from operator new that is full of this byte, so that
// what was never written is never zero by chance.
#pragma once

namespace vmsg::testing {

inline unsigned char heap_poison = 0;

}  // namespace vmsg::testing
