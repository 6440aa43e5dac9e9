// SPDX-License-Identifier: Apache-2.0
// What sees a bus's messages: the trace, and at debug level the log.
#pragma once

#include <memory>

#include "backend/bus/bus_interfaces.h"
#include "backend/runtime/event_loop.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/trace/trace.h"
#include "xenstore/bus_nodes.h"

namespace vmsg::backend {

// Used on the thread of `loop`. The log gets what a driver says to set up and to end; what it says
// for each buffer (EVENT_AVAIL, EVENT_USED) is the trace's only.
std::unique_ptr<MessageTap> NewBusTap(std::shared_ptr<Trace> trace,
                                      std::shared_ptr<RateLimitedLog> log, EventLoop& loop,
                                      const xenstore::BusAddress& bus);

}  // namespace vmsg::backend
