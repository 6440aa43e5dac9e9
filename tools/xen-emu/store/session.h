// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "tools/xen-emu/store/tree/transaction.h"
#include "tools/xen-emu/store/watch_list.h"
#include "tools/xen-emu/store/wire/output_queue.h"

namespace vmsg::emu::store {

// One client, apart from the socket it comes by.
struct Session {
  uint64_t id = 0;
  uint16_t domain = 0;
  WatchList watches;
  std::map<uint32_t, std::unique_ptr<Transaction>> transactions;
  uint32_t next_transaction = 1;  // 0 stands for "none" on the wire
  OutputQueue output;
  bool closing = false;  // to be closed by whoever owns the socket
};

}  // namespace vmsg::emu::store
