// SPDX-License-Identifier: Apache-2.0
#include <mutex>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "grants/emulated/connection.h"
#include "grants/emulated/handles.h"
#include "grants/emulated/memory_files.h"
#include "grants/emulated/protocol.h"
#include "grants/grant_sharer.h"

namespace vmsg::emu {
namespace {

using grants::Access;
using grants::DomainId;
using grants::GrantRef;
using grants::SharedPages;

class EmulatedGrantSharer final : public grants::GrantSharer {
 public:
  explicit EmulatedGrantSharer(std::unique_ptr<Connection> connection)
      : connection_(std::move(connection)) {}

  absl::StatusOr<SharedPages> Share(DomainId with, size_t pages, Access access) override {
    if (pages == 0) return absl::InvalidArgumentError("no pages to share");
    if (with >= grants::kFirstReservedDomain) {
      return absl::InvalidArgumentError(absl::StrCat(
          "domid ", with, " is no domain: the highest is ", grants::kFirstReservedDomain - 1));
    }
    if (pages > kMaxMapPages) {
      return absl::ResourceExhaustedError(absl::StrCat("cannot share ", pages,
                                                       " pages: the emulation grants at most ",
                                                       kMaxMapPages, " at once"));
    }
    std::lock_guard lock(mutex_);
    const ShareRequest request{.with = with,
                               .writable = access == Access::kReadWrite,
                               .pages = static_cast<uint32_t>(pages),
                               .known_memory = files_.Known(kOwn, true)};
    absl::StatusOr<Reply> reply = connection_->Call(Operation::kShare, request);
    if (!reply.ok()) return reply.status();
    ShareReply answer{};
    if (absl::Status status = reply->Get(0, &answer); !status.ok()) return status;
    std::vector<GrantRef> refs;
    absl::StatusOr<std::span<std::byte>> bytes = MapAnswer(request, answer, *reply, &refs);
    if (!bytes.ok()) {
      connection_->Post(Operation::kUnshare, {.id = answer.share});
      return bytes.status();
    }
    shares_.emplace(bytes->data(), answer.share);
    return SharedPages(this, *bytes, std::move(refs));
  }

 private:
  static constexpr DomainId kOwn = 0;  // one memory only: the domain's own

  absl::StatusOr<std::span<std::byte>> MapAnswer(const ShareRequest& request,
                                                 const ShareReply& answer, Reply& reply,
                                                 std::vector<GrantRef>* refs) {
    std::vector<FrameRun> runs;
    absl::Status status = reply.GetArray(sizeof(answer), answer.runs, &runs);
    if (!status.ok()) return status;
    status = reply.GetArray(sizeof(answer) + runs.size() * sizeof(FrameRun), request.pages, refs);
    if (!status.ok()) return status;
    const std::shared_ptr<const OwnedFd> file =
        files_.Take(kOwn, true, answer.memory, std::move(reply.fds[0]));
    return MapRuns(file == nullptr ? -1 : file->get(), runs, request.pages, true);
  }

  void Unshare(std::span<std::byte> bytes) override {
    std::lock_guard lock(mutex_);
    const auto share = shares_.find(bytes.data());
    if (share == shares_.end()) return;
    // Under the lock: another thread's Share may get this address as soon as it is free.
    UnmapRange(bytes);
    connection_->Post(Operation::kUnshare, {.id = share->second});
    shares_.erase(share);
  }

  std::mutex mutex_;
  std::unique_ptr<Connection> connection_;
  MemoryFiles files_;
  std::unordered_map<std::byte*, uint64_t> shares_;  // by first byte
};

}  // namespace

absl::StatusOr<std::unique_ptr<grants::GrantSharer>> OpenGrantSharer(const std::string& directory) {
  auto connection = Connection::Open(absl::StrCat(directory, "/", kHypervisorSocket));
  if (!connection.ok()) return connection.status();
  return std::make_unique<EmulatedGrantSharer>(*std::move(connection));
}

}  // namespace vmsg::emu
