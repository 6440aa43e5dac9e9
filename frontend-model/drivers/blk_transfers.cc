// SPDX-License-Identifier: Apache-2.0
// Block requests that are waited for.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "frontend-model/drivers/blk_driver.h"

namespace vmsg::frontend {

// Requests of one transfer that are still out, and the first thing that went wrong.
class BlkDriver::Gathered final : public BlkCompletion {
 public:
  void OnBlkDone(uint64_t, const absl::Status& status) override {
    --outstanding;
    if (first_error.ok() && !status.ok()) first_error = status;
  }
  uint32_t outstanding = 0;
  absl::Status first_error;
};

absl::Status BlkDriver::Await(Gathered& gathered, absl::FunctionRef<bool()> step,
                              Deadline deadline) {
  absl::Status waited = client_->bus().WaitUntil(step, deadline);
  if (gathered.outstanding == 0) return gathered.first_error;
  // The device still owns the buffers, and the driver its memory for them: only a reset changes
  // that.
  Quiesce(Clock::now()).IgnoreError();
  return waited;
}

absl::Status BlkDriver::Transfer(uint32_t type, uint64_t offset, uint64_t address, uint64_t size,
                                 Deadline deadline) {
  if (offset % wire::kBlkSectorSize != 0 || size % wire::kBlkSectorSize != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("offset ", offset, " and size ", size, " are not multiples of 512"));
  }
  if (offset > limits_.capacity || size > limits_.capacity - offset) {
    return absl::OutOfRangeError(absl::StrCat("bytes ", offset, " to ", offset + size,
                                              " of a device of ", limits_.capacity));
  }
  Gathered gathered;
  uint64_t submitted = 0;
  const auto step = [&] {
    while (submitted < size && gathered.first_error.ok()) {
      const auto piece =
          static_cast<uint32_t>(std::min<uint64_t>(size - submitted, limits_.max_request));
      absl::Status status =
          Submit(type, offset + submitted, address + submitted, piece, &gathered, 0);
      if (absl::IsResourceExhausted(status) && gathered.outstanding > 0) break;
      if (!status.ok()) {
        gathered.first_error = status;
        break;
      }
      ++gathered.outstanding;
      submitted += piece;
    }
    return gathered.outstanding == 0;
  };
  if (step()) return gathered.first_error;
  return Await(gathered, step, deadline);
}

absl::Status BlkDriver::Read(uint64_t offset, uint64_t address, uint64_t size, Deadline deadline) {
  return Transfer(wire::kBlkRequestIn, offset, address, size, deadline);
}

absl::Status BlkDriver::Write(uint64_t offset, uint64_t address, uint64_t size, Deadline deadline) {
  return Transfer(wire::kBlkRequestOut, offset, address, size, deadline);
}

absl::Status BlkDriver::Flush(Deadline deadline) {
  if (!limits_.flush) return absl::OkStatus();  // every write is stable when it completes
  Gathered gathered;
  if (absl::Status status = SubmitFlush(&gathered, 0); !status.ok()) return status;
  gathered.outstanding = 1;
  return Await(
      gathered, [&] { return gathered.outstanding == 0; }, deadline);
}

absl::StatusOr<std::string> BlkDriver::GetId(Deadline deadline) {
  Gathered gathered;
  absl::Status status =
      Submit(wire::kBlkRequestGetId, 0, id_.address(), wire::kBlkIdSize, &gathered, 0);
  if (!status.ok()) return status;
  gathered.outstanding = 1;
  status = Await(
      gathered, [&] { return gathered.outstanding == 0; }, deadline);
  if (!status.ok()) return status;
  char id[wire::kBlkIdSize];
  std::memcpy(id, id_.bytes().data(), sizeof(id));
  return std::string(id, strnlen(id, sizeof(id)));
}

absl::Status BlkDriver::Quiesce(Deadline deadline) {
  if (queue_ == nullptr) return absl::OkStatus();
  absl::Status status = client_->bus().WaitUntil(
      [this] { return in_flight_ == 0 || client_->removed() || !failure_.ok(); }, deadline);
  stopped_ = true;
  // A reset ends also what did not end by itself in time.
  if (absl::IsDeadlineExceeded(status)) status = absl::OkStatus();
  if (status.ok() && !client_->removed()) {
    status = client_->Reset();
    if (status.ok()) queue_ = nullptr;
  }
  // Whatever became of the device, its requests have ended for those who submitted them.
  Abandon(status.ok() ? absl::CancelledError("the device was reset") : status);
  return status;
}

}  // namespace vmsg::frontend
