// SPDX-License-Identifier: Apache-2.0
#include "tests/backend/bus/poisoned_heap.h"

#include <cstdlib>
#include <cstring>
#include <new>

void* operator new(size_t size) {
  void* const memory = malloc(size);
  if (memory == nullptr) abort();
  memset(memory, vmsg::testing::heap_poison, size);
  return memory;
}
void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
