// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace vmsg::emu::store {

// What an unprivileged domain (every one but 0) may use. The defaults, and which side of the limit
// is still allowed, are those of the C xenstored.
struct Quotas {
  size_t nodes = 1000;              // owned by the domain; refused when this many exist
  size_t node_bytes = 2048;         // one node: 24 + 8 a permission + value + names of children
  size_t watches = 128;             // registered by the domain; refused when there are more
  size_t transactions = 10;         // open at once; refused when there are more
  size_t transaction_nodes = 1024;  // touched by one transaction
  size_t permissions = 5;           // entries of one node
  size_t event_bytes = 2621440;     // watch events not yet read; further ones are dropped
};

}  // namespace vmsg::emu::store
