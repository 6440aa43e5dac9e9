// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "grants/emulated/connection.h"
#include "grants/emulated/handles.h"
#include "grants/emulated/memory_files.h"
#include "grants/emulated/protocol.h"
#include "grants/emulated/shared_page.h"
#include "grants/grant_mapper.h"

namespace vmsg::emu {
namespace {

using grants::Access;
using grants::DomainId;
using grants::GrantMapping;
using grants::GrantRef;

class EmulatedGrantMapper final : public grants::GrantMapper {
 public:
  EmulatedGrantMapper(std::unique_ptr<Connection> connection, SharedPage<ReleasePage> releases)
      : connection_(std::move(connection)), releases_(std::move(releases)) {}

  absl::StatusOr<GrantMapping> Map(DomainId domain, absl::Span<const GrantRef> refs,
                                   Access access) override {
    if (absl::Status valid = Check(domain, refs); !valid.ok()) return valid;
    const bool writable = access == Access::kReadWrite;
    std::unique_lock lock(mutex_);
    const MapRequest request{.domain = domain,
                             .writable = writable,
                             .count = static_cast<uint32_t>(refs.size()),
                             .known_memory = files_.Known(domain, writable)};
    absl::StatusOr<Reply> reply = connection_->Call(
        Operation::kMap, request, std::as_bytes(std::span(refs.data(), refs.size())));
    if (!reply.ok()) return reply.status();
    MapReply answer{};
    if (absl::Status status = reply->Get(0, &answer); !status.ok()) return status;
    const std::shared_ptr<const OwnedFd> file =
        files_.Take(domain, writable, answer.memory, std::move(reply->fds[0]));
    // A large window takes a while to populate: another guest's is not to wait for it.
    lock.unlock();
    absl::StatusOr<std::span<std::byte>> bytes = MapAnswer(request, answer, *reply, file);
    lock.lock();
    if (!bytes.ok()) {
      Release(answer.mapping);
      return bytes.status();
    }
    mappings_.emplace(bytes->data(), answer.mapping);
    return GrantMapping(this, *bytes);
  }

  absl::Status Copy(DomainId domain, GrantRef ref,
                    std::span<std::byte, grants::kPageSize> to) override {
    if (absl::Status valid = Check(domain, {&ref, 1}); !valid.ok()) return valid;
    std::lock_guard lock(mutex_);
    absl::StatusOr<Reply> reply = connection_->Call(
        Operation::kCopy, CopyRequest{.domain = domain, .reserved = 0, .ref = ref});
    if (!reply.ok()) return reply.status();
    if (reply->body.size() != to.size()) {
      return absl::InternalError(
          absl::StrCat("emulated Xen: a copied page has ", reply->body.size(), " bytes"));
    }
    std::memcpy(to.data(), reply->body.data(), to.size());
    return absl::OkStatus();
  }

 private:
  static absl::Status Check(DomainId domain, absl::Span<const GrantRef> refs) {
    if (refs.empty()) return absl::InvalidArgumentError("no grant references to map");
    if (domain >= grants::kFirstReservedDomain) {
      return absl::InvalidArgumentError(absl::StrCat(
          "domid ", domain, " is no domain: the highest is ", grants::kFirstReservedDomain - 1));
    }
    if (refs.size() > kMaxMapPages) {
      return absl::ResourceExhaustedError(absl::StrCat("cannot map ", refs.size(),
                                                       " pages in one request: gntdev's module ",
                                                       "parameter `limit` is ", kMaxMapPages));
    }
    // Real Xen maps these without an error (they are the toolstack's): refused before it is asked.
    for (size_t i = 0; i < refs.size(); ++i) {
      if (refs[i] < grants::kReservedGrantRefs) {
        return absl::InvalidArgumentError(absl::StrCat(
            "entry ", i, ": grant reference ", refs[i], " of domain ", domain,
            " is reserved: 0 to ", grants::kReservedGrantRefs - 1, " belong to the toolstack"));
      }
    }
    return absl::OkStatus();
  }

  static absl::StatusOr<std::span<std::byte>> MapAnswer(
      const MapRequest& request, const MapReply& answer, const Reply& reply,
      const std::shared_ptr<const OwnedFd>& file) {
    std::vector<FrameRun> runs;
    if (absl::Status status = reply.GetArray(sizeof(answer), answer.runs, &runs); !status.ok()) {
      return status;
    }
    return MapRuns(file == nullptr ? -1 : file->get(), runs, request.count, request.writable);
  }

  void Unmap(std::span<std::byte> bytes) override {
    std::lock_guard lock(mutex_);
    const auto mapping = mappings_.find(bytes.data());
    if (mapping == mappings_.end()) return;
    // The pages go first: once xen-emu has heard of it, the guest may use them for something else.
    // Under the lock: another thread's Map may get this address as soon as it is free, and enters
    // it into mappings_ when this is done.
    UnmapRange(bytes);
    Release(mapping->second);
    mappings_.erase(mapping);
  }

  void Release(uint64_t mapping) {
    std::atomic_ref<uint64_t> slot = releases_->slot(next_release_);
    if (slot.load(std::memory_order_acquire) != 0) {
      connection_->Post(Operation::kUnmap, {.id = mapping});
      return;
    }
    slot.store(mapping, std::memory_order_release);
    ++next_release_;
  }

  std::mutex mutex_;
  std::unique_ptr<Connection> connection_;
  SharedPage<ReleasePage> releases_;
  uint32_t next_release_ = 0;
  MemoryFiles files_;
  std::unordered_map<std::byte*, uint64_t> mappings_;  // by first byte
};

}  // namespace

absl::StatusOr<std::unique_ptr<grants::GrantMapper>> OpenGrantMapper(const std::string& directory) {
  auto connection = Connection::Open(absl::StrCat(directory, "/", kHypervisorSocket));
  if (!connection.ok()) return connection.status();
  absl::StatusOr<Reply> reply = (*connection)->Call(Operation::kOpenReleases, {});
  if (!reply.ok()) return reply.status();
  auto releases = SharedPage<ReleasePage>::Map(reply->fds[0]);
  if (!releases.ok()) return releases.status();
  return std::make_unique<EmulatedGrantMapper>(*std::move(connection), *std::move(releases));
}

}  // namespace vmsg::emu
