// SPDX-License-Identifier: Apache-2.0
// The hypervisor's calls, apart from the sockets they come through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/emulated/protocol.h"
#include "grants/emulated/shared_page.h"
#include "tools/xen-emu/domains/domain.h"
#include "tools/xen-emu/domains/event_ports.h"
#include "tools/xen-emu/faults.h"

namespace vmsg::emu {

// What one connection holds open. Ended by Hypervisor::Close.
struct OpenHandle {
  explicit OpenHandle(std::shared_ptr<Domain> domain) : domain(std::move(domain)) {}

  struct Mapping {
    std::shared_ptr<Domain> of;
    std::vector<grants::GrantRef> refs;
  };
  const std::shared_ptr<Domain> domain;
  std::unordered_map<uint64_t, Mapping> mappings;
  std::unordered_map<uint64_t, std::vector<grants::GrantRef>> shares;
  std::unique_ptr<EventHandle> events;
  OwnedFd releases_file;
  SharedPage<ReleasePage> releases;
  uint32_t next_release = 0;
};

// The body of a reply, and the files that go with it: xen-emu's own, to be sent at once.
struct Answer {
  std::vector<std::byte> body;
  int fds[kMaxFileDescriptors] = {-1, -1, -1};

  template <class T>
  void Append(const T& value) {
    AppendArray(&value, 1);
  }
  template <class T>
  void AppendArray(const T* values, size_t count) {
    const size_t end = body.size();
    body.resize(end + count * sizeof(T));
    if (count != 0) std::memcpy(body.data() + end, values, count * sizeof(T));
  }
};

class Hypervisor {
 public:
  explicit Hypervisor(DomainList* domains) : domains_(*domains) {}

  // Serves every request but kCommand. InvalidArgument: an unknown operation or a body of a wrong
  // size among the refusals; nothing has changed then.
  absl::StatusOr<Answer> Serve(OpenHandle& handle, Operation operation,
                               std::span<const std::byte> body);

  // What handles released through their pages: to be called before requests are served.
  void DrainReleases();

  // The process is gone: unmaps, closes, and ends what the handle held.
  void Close(OpenHandle& handle);

  Faults& faults() { return faults_; }
  const EventPorts& ports() const { return ports_; }
  absl::Status LoseEvents(grants::DomainId domain, grants::EventPort port, uint32_t count) {
    return ports_.LoseEvents(domain, port, count);
  }

 private:
  absl::StatusOr<Answer> Map(OpenHandle& handle, std::span<const std::byte> body);
  absl::StatusOr<Answer> Copy(const OpenHandle& handle, std::span<const std::byte> body);
  absl::StatusOr<Answer> Share(OpenHandle& handle, std::span<const std::byte> body);
  absl::StatusOr<Answer> OpenEvents(OpenHandle& handle);
  absl::StatusOr<Answer> OpenReleases(OpenHandle& handle);
  absl::StatusOr<Answer> ListDomains(const OpenHandle& handle);
  absl::StatusOr<Answer> ServePort(OpenHandle& handle, Operation operation,
                                   std::span<const std::byte> body);
  absl::StatusOr<Answer> Describe(const OpenHandle& handle, grants::EventPort port);
  void Unmap(OpenHandle& handle, uint64_t mapping);
  void Unshare(OpenHandle& handle, uint64_t share);

  DomainList& domains_;
  EventPorts ports_;
  Faults faults_;
  std::set<OpenHandle*> releasing_;  // handles with a release page
  uint64_t next_id_ = 1;
};

}  // namespace vmsg::emu
