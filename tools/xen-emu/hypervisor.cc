// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/hypervisor.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace vmsg::emu {

using grants::DomainId;
using grants::EventPort;
using grants::GrantRef;

namespace {

constexpr uint64_t kMappingsPerMaptrackFrame = 256;

template <class T>
absl::Status Parse(std::span<const std::byte> body, T* request) {
  if (body.size() < sizeof(T)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a request's body has ", body.size(), " bytes, not ", sizeof(T)));
  }
  std::memcpy(request, body.data(), sizeof(T));
  return absl::OkStatus();
}

std::vector<FrameRun> RunsOf(const GrantTable& table, std::span<const GrantRef> refs) {
  std::vector<FrameRun> runs;
  for (const GrantRef ref : refs) {
    const uint32_t frame = table.frame(ref);
    if (!runs.empty() && runs.back().first + runs.back().pages == frame) {
      ++runs.back().pages;
    } else {
      runs.push_back({.first = frame, .pages = 1});
    }
  }
  return runs;
}

}  // namespace

absl::StatusOr<Answer> Hypervisor::Serve(OpenHandle& handle, Operation operation,
                                         std::span<const std::byte> body) {
  switch (operation) {
    case Operation::kMap:
      return Map(handle, body);
    case Operation::kCopy:
      return Copy(handle, body);
    case Operation::kShare:
      return Share(handle, body);
    case Operation::kUnmap:
    case Operation::kUnshare: {
      ReleaseRequest request{};
      if (absl::Status status = Parse(body, &request); !status.ok()) return status;
      if (operation == Operation::kUnmap) {
        Unmap(handle, request.id);
      } else {
        Unshare(handle, request.id);
      }
      return Answer();
    }
    case Operation::kOpenEvents:
      return OpenEvents(handle);
    case Operation::kOpenReleases:
      return OpenReleases(handle);
    case Operation::kListDomains:
      return ListDomains(handle);
    case Operation::kAllocateUnbound:
    case Operation::kBindInterdomain:
    case Operation::kQueryPeer:
    case Operation::kUnbind:
      return ServePort(handle, operation, body);
    case Operation::kCommand:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("xen-emu knows no operation ", static_cast<uint16_t>(operation)));
}

absl::StatusOr<Answer> Hypervisor::Map(OpenHandle& handle, std::span<const std::byte> body) {
  MapRequest request{};
  if (absl::Status status = Parse(body, &request); !status.ok()) return status;
  if (request.count == 0 || request.count > kMaxMapPages ||
      body.size() != sizeof(request) + size_t{request.count} * sizeof(GrantRef)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a map request for ", request.count, " pages has ", body.size(), " bytes"));
  }
  const std::shared_ptr<Domain> of = domains_.FindWithZombies(request.domain);
  if (of == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("domain ", request.domain, " does not exist"));
  }
  Domain& mapper = *handle.domain;
  const uint64_t limit = domains_.limits().max_maptrack_frames * kMappingsPerMaptrackFrame;
  if (request.count > limit - mapper.mapped_pages) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", request.count, " pages: domain ", mapper.id, " maps ",
                     mapper.mapped_pages, " of at most ", limit, " (max_maptrack_frames is ",
                     domains_.limits().max_maptrack_frames, ")"));
  }
  uint32_t failing = request.count;
  if (!faults_.Strike(Faults::Kind::kMapFail, of->id, request.count, &failing)) {
    failing = request.count;
  }
  std::vector<GrantRef> refs(request.count);
  std::memcpy(refs.data(), body.data() + sizeof(request), refs.size() * sizeof(GrantRef));
  for (uint32_t i = 0; i < refs.size(); ++i) {
    absl::Status allowed = of->grants.Check(refs[i], mapper.id, request.writable != 0);
    if (i == failing) allowed = absl::InvalidArgumentError("refused by fault map-fail");
    if (!allowed.ok()) {
      for (uint32_t done = 0; done < i; ++done) of->grants.Unpin(refs[done]);
      return absl::InvalidArgumentError(absl::StrCat("entry ", i, " of ", refs.size(),
                                                     " grants of domain ", of->id,
                                                     " does not map: ", allowed.message()));
    }
    of->grants.Pin(refs[i]);
  }
  mapper.mapped_pages += refs.size();

  const std::vector<FrameRun> runs = RunsOf(of->grants, refs);
  Answer answer;
  answer.Append(MapReply{.mapping = next_id_,
                         .memory = of->memory->serial(),
                         .runs = static_cast<uint32_t>(runs.size()),
                         .reserved = 0});
  answer.AppendArray(runs.data(), runs.size());
  if (request.known_memory != of->memory->serial()) {
    answer.fds[0] = of->memory->file(request.writable != 0).get();
  }
  handle.mappings[next_id_++] = {.of = of, .refs = std::move(refs)};
  return answer;
}

absl::StatusOr<Answer> Hypervisor::Copy(const OpenHandle& handle, std::span<const std::byte> body) {
  CopyRequest request{};
  if (absl::Status status = Parse(body, &request); !status.ok()) return status;
  const std::shared_ptr<Domain> of = domains_.FindWithZombies(request.domain);
  if (of == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("domain ", request.domain, " does not exist"));
  }
  uint32_t unused = 0;
  if (faults_.Strike(Faults::Kind::kMapFail, of->id, 1, &unused)) {
    return absl::InvalidArgumentError("refused by fault map-fail");
  }
  absl::Status allowed = of->grants.Check(request.ref, handle.domain->id, /*writable=*/false);
  if (!allowed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("grant ", request.ref, " of domain ", of->id,
                                                   " does not copy: ", allowed.message()));
  }
  Answer answer;
  answer.body.resize(grants::kPageSize);
  const auto start = static_cast<off_t>(of->grants.frame(request.ref) * grants::kPageSize);
  const ssize_t got = pread(of->memory->file(/*writable=*/false).get(), answer.body.data(),
                            answer.body.size(), start);
  if (got != static_cast<ssize_t>(answer.body.size())) {
    return absl::InternalError(absl::StrCat("reading frame ", of->grants.frame(request.ref),
                                            " of domain ", of->id, " gave ", got, " bytes"));
  }
  return answer;
}

absl::StatusOr<Answer> Hypervisor::Share(OpenHandle& handle, std::span<const std::byte> body) {
  ShareRequest request{};
  if (absl::Status status = Parse(body, &request); !status.ok()) return status;
  Domain& domain = *handle.domain;
  if (request.pages == 0 || request.with >= grants::kFirstReservedDomain) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot share ", request.pages, " pages with domain ", request.with));
  }
  const uint64_t limit = domains_.limits().gntalloc_limit;
  if (request.pages > kMaxMapPages || request.pages > limit - domain.shared_pages) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot share ", request.pages, " pages: domain ", domain.id, " shares ",
        domain.shared_pages, " of at most ", limit, " (gntalloc's module parameter `limit`)"));
  }
  uint32_t unused = 0;
  if (faults_.Strike(Faults::Kind::kShareFail, domain.id, 0, &unused)) {
    return absl::ResourceExhaustedError("refused by fault share-fail");
  }
  auto refs = domain.grants.Share(request.with, request.pages, request.writable != 0);
  if (!refs.ok()) return refs.status();
  domain.shared_pages += request.pages;

  const std::vector<FrameRun> runs = RunsOf(domain.grants, *refs);
  Answer answer;
  answer.Append(ShareReply{.share = next_id_,
                           .memory = domain.memory->serial(),
                           .runs = static_cast<uint32_t>(runs.size()),
                           .pages = request.pages});
  answer.AppendArray(runs.data(), runs.size());
  answer.AppendArray(refs->data(), refs->size());
  if (request.known_memory != domain.memory->serial()) {
    answer.fds[0] = domain.memory->file(true).get();
  }
  handle.shares[next_id_++] = *std::move(refs);
  return answer;
}

absl::StatusOr<Answer> Hypervisor::OpenEvents(OpenHandle& handle) {
  if (handle.events != nullptr) {
    return absl::InvalidArgumentError("the handle has opened event channels already");
  }
  auto events = EventHandle::Create(next_id_++, handle.domain->id);
  if (!events.ok()) return events.status();
  handle.events = *std::move(events);
  Answer answer;
  answer.fds[0] = handle.events->page_.get();
  answer.fds[1] = handle.events->control_file_.get();
  answer.fds[2] = handle.events->eventfd_.get();
  return answer;
}

absl::StatusOr<Answer> Hypervisor::OpenReleases(OpenHandle& handle) {
  if (handle.releases_file) {
    return absl::InvalidArgumentError("the handle has opened its release page already");
  }
  auto file = CreateSealedFile("xen-emu-releases", sizeof(ReleasePage));
  if (!file.ok()) return file.status();
  auto page = SharedPage<ReleasePage>::Map(*file);
  if (!page.ok()) return page.status();
  handle.releases_file = *std::move(file);
  handle.releases = *std::move(page);
  releasing_.insert(&handle);
  Answer answer;
  answer.fds[0] = handle.releases_file.get();
  return answer;
}

void Hypervisor::DrainReleases() {
  for (OpenHandle* handle : releasing_) {
    for (uint32_t i = 0; i < ReleasePage::kSlots; ++i) {
      const uint64_t mapping =
          handle->releases->slot(handle->next_release).exchange(0, std::memory_order_acq_rel);
      if (mapping == 0) break;
      ++handle->next_release;
      Unmap(*handle, mapping);
    }
  }
}

absl::StatusOr<Answer> Hypervisor::ListDomains(const OpenHandle& handle) {
  if (handle.domain->id != 0) {
    return absl::PermissionDeniedError("Xen tells only a control domain which domains there are");
  }
  std::vector<ListedDomain> listed;
  for (const std::shared_ptr<Domain>& domain : domains_.All()) {
    listed.push_back({.id = domain->id,
                      .dying = domain->state == Domain::State::kDying,
                      .shut_down = domain->state == Domain::State::kShutDown});
  }
  // Zombies come last in the list of domains, but Xen answers by domid.
  std::sort(listed.begin(), listed.end(),
            [](const ListedDomain& a, const ListedDomain& b) { return a.id < b.id; });
  Answer answer;
  answer.AppendArray(listed.data(), listed.size());
  return answer;
}

absl::StatusOr<Answer> Hypervisor::ServePort(OpenHandle& handle, Operation operation,
                                             std::span<const std::byte> body) {
  PortRequest request{};
  if (absl::Status status = Parse(body, &request); !status.ok()) return status;
  EventHandle* events = handle.events.get();
  if (events == nullptr) {
    return absl::InvalidArgumentError("the handle has not opened event channels");
  }
  if (operation == Operation::kQueryPeer) return Describe(handle, request.port);
  if (operation == Operation::kUnbind) {
    if (absl::Status status = ports_.Close(events, request.port); !status.ok()) return status;
    return Answer();
  }
  absl::StatusOr<EventPort> port;
  if (operation == Operation::kAllocateUnbound) {
    port = ports_.AllocateUnbound(events, request.remote);
  } else {
    uint32_t unused = 0;
    if (faults_.Strike(Faults::Kind::kBindFail, handle.domain->id, 0, &unused)) {
      return absl::InvalidArgumentError("refused by fault bind-fail");
    }
    port = ports_.BindInterdomain(events, request.remote, request.port);
  }
  if (!port.ok()) return port.status();
  return Describe(handle, *port);
}

absl::StatusOr<Answer> Hypervisor::Describe(const OpenHandle& handle, EventPort number) {
  const EventPorts::Port* port = ports_.Find(handle.domain->id, number);
  if (port == nullptr || port->handle != handle.events.get()) {
    return absl::InvalidArgumentError(absl::StrCat("port ", number, " is not one of this handle"));
  }
  PortReply reply{.port = number,
                  .slot = port->slot,
                  .generation = port->handle->control_->slots[port->slot].generation_word().load(),
                  .peer_slot = 0,
                  .peer_handle = 0};
  Answer answer;
  if (const EventPorts::Port* peer = ports_.PeerOf(*port)) {
    reply.peer_slot = peer->slot;
    reply.peer_handle = peer->handle->id;
    answer.fds[0] = peer->handle->page_.get();
    answer.fds[1] = peer->handle->eventfd_.get();
  }
  answer.Append(reply);
  return answer;
}

void Hypervisor::Unmap(OpenHandle& handle, uint64_t id) {
  const auto mapping = handle.mappings.find(id);
  if (mapping == handle.mappings.end()) return;
  for (const GrantRef ref : mapping->second.refs) mapping->second.of->grants.Unpin(ref);
  handle.domain->mapped_pages -= mapping->second.refs.size();
  handle.mappings.erase(mapping);
}

void Hypervisor::Unshare(OpenHandle& handle, uint64_t id) {
  const auto share = handle.shares.find(id);
  if (share == handle.shares.end()) return;
  handle.domain->grants.End(share->second);
  handle.domain->shared_pages -= share->second.size();
  handle.shares.erase(share);
}

void Hypervisor::Close(OpenHandle& handle) {
  while (!handle.mappings.empty()) Unmap(handle, handle.mappings.begin()->first);
  while (!handle.shares.empty()) Unshare(handle, handle.shares.begin()->first);
  if (handle.events != nullptr) ports_.CloseAll(handle.events.get());
  handle.events.reset();
  releasing_.erase(&handle);
}

}  // namespace vmsg::emu
