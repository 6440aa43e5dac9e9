// SPDX-License-Identifier: Apache-2.0
#include "backend/session/worker_window_mapper.h"

#include <utility>

namespace vmsg::backend {
namespace {

class WorkerWindowMapper : public WindowMapper {
 public:
  explicit WorkerWindowMapper(WorkerWindowMapperParts parts) : parts_(std::move(parts)) {}

  void Map(uint32_t directory_ref, uint32_t pages,
           absl::AnyInvocable<void(absl::StatusOr<grants::GrantMapping>)> done) override {
    parts_.workers.Submit(parts_.lane, [&mapper = parts_.mapper, frontend = parts_.frontend,
                                        directory_ref, pages, budget = parts_.budget,
                                        &loop = parts_.loop, done = std::move(done)]() mutable {
      auto mapping = MapWindowPages(mapper, frontend, directory_ref, pages, budget);
      loop.Post([done = std::move(done), mapping = std::move(mapping)]() mutable {
        done(std::move(mapping));
      });
    });
  }

  void Unmap(grants::GrantMapping mapping, absl::AnyInvocable<void()> done) override {
    parts_.workers.Submit(parts_.lane, [mapping = std::move(mapping), &loop = parts_.loop,
                                        done = std::move(done)]() mutable {
      mapping.Reset();
      loop.Post(std::move(done));
    });
  }

 private:
  const WorkerWindowMapperParts parts_;
};

}  // namespace

std::unique_ptr<WindowMapper> NewWorkerWindowMapper(WorkerWindowMapperParts parts) {
  return std::make_unique<WorkerWindowMapper>(std::move(parts));
}

}  // namespace vmsg::backend
