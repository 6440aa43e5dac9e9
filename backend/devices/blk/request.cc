// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/blk/request.h"

#include "absl/strings/str_cat.h"
#include "backend/virtqueue/guest_bytes.h"

namespace vmsg::backend {

BlkParse ParseBlkRequest(const DescriptorChain& chain, BlkRequest* request) {
  request->data.clear();
  request->data_bytes = 0;
  request->status = nullptr;
  if (chain.writable_bytes == 0) return BlkParse::kNoStatus;
  const iovec& last = chain.writable.back();
  request->status = static_cast<std::byte*>(last.iov_base) + last.iov_len - 1;

  wire::BlkRequestHeader header;
  if (ReadGuest(chain.readable, 0, std::as_writable_bytes(std::span(&header, 1))) !=
      sizeof header) {
    return BlkParse::kNoHeader;
  }
  request->type = header.type;
  request->sector = header.sector;
  if (request->type == wire::kBlkRequestOut) {
    request->data_bytes = chain.readable_bytes - sizeof header;
    SlicePieces(chain.readable, sizeof header, request->data_bytes, &request->data);
  } else {
    request->data_bytes = chain.writable_bytes - 1;
    SlicePieces(chain.writable, 0, request->data_bytes, &request->data);
  }
  return BlkParse::kOk;
}

absl::Status CheckInsideDisk(const BlkRequest& request, uint64_t disk_bytes) {
  const uint64_t capacity = disk_bytes / wire::kBlkSectorSize;
  if (request.data_bytes % wire::kBlkSectorSize == 0 && request.sector <= capacity &&
      request.data_bytes / wire::kBlkSectorSize <= capacity - request.sector) {
    return absl::OkStatus();
  }
  return absl::OutOfRangeError(absl::StrCat(request.type == wire::kBlkRequestOut ? "write" : "read",
                                            " of ", request.data_bytes, " bytes at sector ",
                                            request.sector, " refused: not whole sectors of the ",
                                            capacity, " that the disk has"));
}

}  // namespace vmsg::backend
