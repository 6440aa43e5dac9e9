// SPDX-License-Identifier: Apache-2.0
// A session's WindowMapper on the worker pool, in the guest's lane and within its budget.
#pragma once

#include <memory>

#include "backend/bus/bus_interfaces.h"
#include "backend/runtime/event_loop.h"
#include "backend/session/map_bus.h"
#include "backend/session/worker_pool.h"
#include "grants/grant_mapper.h"

namespace vmsg::backend {

struct WorkerWindowMapperParts {
  WorkerPool& workers;
  WorkerPool::Key lane;
  grants::GrantMapper& mapper;
  grants::DomainId frontend;
  std::shared_ptr<PageBudget> budget;
  EventLoop& loop;  // the session's: where answers run
};
// What the parts refer to outlives the answers to all calls.
std::unique_ptr<WindowMapper> NewWorkerWindowMapper(WorkerWindowMapperParts parts);

}  // namespace vmsg::backend
