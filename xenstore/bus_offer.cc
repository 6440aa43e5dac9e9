// SPDX-License-Identifier: Apache-2.0
#include "xenstore/bus_offer.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "text/foreign_text.h"
#include "xenstore/text_value.h"

namespace vmsg::xenstore {
namespace {

constexpr size_t kMaxVersions = 16;
// Leaves room for path and header in xenstore's 4096 bytes, and is enough for a sentence.
constexpr size_t kMaxErrorBytes = 1024;
constexpr uint32_t kNoLimit = UINT32_MAX;

std::string Join(absl::string_view directory, absl::string_view node) {
  return absl::StrCat(directory, "/", node);
}

// The state node must be there already: a write would create the whole directory anew.
absl::Status RequireState(NodeAccess& nodes, absl::string_view directory) {
  return nodes.Read(Join(directory, kState)).status();
}

absl::Status WriteNodesAndState(Store& store, const std::string& directory,
                                const std::vector<std::pair<const char*, std::string>>& nodes,
                                XenbusState state) {
  return store.Transaction([&](NodeAccess& access) {
    if (absl::Status status = RequireState(access, directory); !status.ok()) return status;
    for (const auto& [node, value] : nodes) {
      if (absl::Status status = access.Write(Join(directory, node), value); !status.ok()) {
        return status;
      }
    }
    return access.Write(Join(directory, kState), StateText(state));
  });
}

absl::StatusOr<uint32_t> ReadNumber(NodeAccess& nodes, absl::string_view directory,
                                    absl::string_view node, uint32_t min, uint32_t max) {
  const std::string path = Join(directory, node);
  absl::StatusOr<std::string> text = nodes.Read(path);
  if (absl::IsNotFound(text.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is missing; expected a decimal number from ", min, " to ", max));
  }
  if (!text.ok()) return text.status();
  absl::StatusOr<uint64_t> value = ParseDecimal(*text, path, min, max);
  if (!value.ok()) return value.status();
  return static_cast<uint32_t>(*value);
}

// A feature node: absent means 0.
absl::StatusOr<bool> ReadFeature(NodeAccess& nodes, absl::string_view directory,
                                 absl::string_view node, bool allowed) {
  if (absl::IsNotFound(nodes.Read(Join(directory, node)).status())) return false;
  absl::StatusOr<uint32_t> value = ReadNumber(nodes, directory, node, 0, allowed ? 1 : 0);
  if (!value.ok()) return value.status();
  return *value == 1;
}

absl::StatusOr<std::vector<uint32_t>> ReadVersions(NodeAccess& nodes, const std::string& path) {
  absl::StatusOr<std::string> text = nodes.Read(path);
  if (!text.ok()) return text.status();
  std::vector<uint32_t> versions;
  for (absl::string_view part : absl::StrSplit(*text, absl::MaxSplits(',', kMaxVersions))) {
    absl::StatusOr<uint64_t> version = ParseDecimal(part, path, 1, kNoLimit);
    if (!version.ok()) return version.status();
    if (!versions.empty() && versions.back() >= *version) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " is ", Quoted(*text), ", which is not in ascending order"));
    }
    versions.push_back(static_cast<uint32_t>(*version));
  }
  return versions;
}

// With the directory that was made for it.
absl::Status RemoveError(Store& store, absl::string_view path) {
  absl::Status removed = store.Remove(path.substr(0, path.rfind('/')));
  // Where nothing was ever reported, there may be no right to look.
  const bool none = absl::IsNotFound(removed) || absl::IsPermissionDenied(removed);
  return none ? absl::OkStatus() : removed;
}

}  // namespace

absl::Status WriteOffer(Store& store, const BusAddress& bus, const BackendOffer& offer) {
  return WriteNodesAndState(store, bus.BackendPath(),
                            {{kVersions, absl::StrJoin(offer.versions, ",")},
                             {kMaxMessageSize, absl::StrCat(offer.max_message_size)},
                             {kMaxWindowPages, absl::StrCat(offer.max_window_pages)},
                             {kMaxRingOrder, absl::StrCat(offer.max_ring_order)},
                             {kFeatureRingEventIdx, offer.ring_event_idx ? "1" : "0"},
                             {kFeatureQueueResume, offer.queue_resume ? "1" : "0"}},
                            XenbusState::kInitWait);
}

absl::StatusOr<BackendOffer> ReadOffer(NodeAccess& nodes, const BusAddress& bus) {
  const std::string directory = bus.BackendPath();
  BackendOffer offer;
  absl::StatusOr<std::vector<uint32_t>> versions = ReadVersions(nodes, Join(directory, kVersions));
  if (!versions.ok()) return versions.status();
  offer.versions = *std::move(versions);

  struct Limit {
    const char* node;
    uint32_t* value;
    uint32_t min;
    uint32_t max;
  };
  for (const Limit& limit : {
           Limit{kMaxMessageSize, &offer.max_message_size, kMinMessageSize, kMaxMessageSizeLimit},
           Limit{kMaxWindowPages, &offer.max_window_pages, 1, kNoLimit},
           Limit{kMaxRingOrder, &offer.max_ring_order, 1, 31},
       }) {
    absl::StatusOr<uint32_t> value = ReadNumber(nodes, directory, limit.node, limit.min, limit.max);
    if (!value.ok()) return value.status();
    *limit.value = *value;
  }
  absl::StatusOr<bool> event_idx = ReadFeature(nodes, directory, kFeatureRingEventIdx, true);
  if (!event_idx.ok()) return event_idx.status();
  offer.ring_event_idx = *event_idx;
  absl::StatusOr<bool> resume = ReadFeature(nodes, directory, kFeatureQueueResume, true);
  if (!resume.ok()) return resume.status();
  offer.queue_resume = *resume;
  return offer;
}

absl::Status WriteRequest(Store& store, const BusAddress& bus, const FrontendRequest& request) {
  return WriteNodesAndState(store, bus.FrontendPath(),
                            {{kVersion, absl::StrCat(request.version)},
                             {kMessageSize, absl::StrCat(request.message_size)},
                             {kRingRef, absl::StrCat(request.ring_ref)},
                             {kEventChannel, absl::StrCat(request.event_channel)},
                             {kDirectoryRef, absl::StrCat(request.directory_ref)},
                             {kDirectoryPages, absl::StrCat(request.directory_pages)},
                             {kFeatureRingEventIdx, request.ring_event_idx ? "1" : "0"},
                             {kFeatureQueueResume, request.queue_resume ? "1" : "0"}},
                            XenbusState::kInitialised);
}

absl::StatusOr<FrontendRequest> ReadRequest(NodeAccess& nodes, const BusAddress& bus,
                                            const BackendOffer& offer) {
  const std::string directory = bus.FrontendPath();
  FrontendRequest request;
  struct Limit {
    const char* node;
    uint32_t* value;
    uint32_t min;
    uint32_t max;
  };
  for (const Limit& limit : {
           Limit{kVersion, &request.version, 1, kNoLimit},
           Limit{kMessageSize, &request.message_size, kMinMessageSize, offer.max_message_size},
           Limit{kRingRef, &request.ring_ref, kFirstUsableGrant, kNoLimit},
           Limit{kEventChannel, &request.event_channel, 1, kMaxEventChannel},
           Limit{kDirectoryRef, &request.directory_ref, kFirstUsableGrant, kNoLimit},
           Limit{kDirectoryPages, &request.directory_pages, 1, offer.max_window_pages},
       }) {
    absl::StatusOr<uint32_t> value = ReadNumber(nodes, directory, limit.node, limit.min, limit.max);
    if (!value.ok()) return value.status();
    *limit.value = *value;
  }
  if (std::find(offer.versions.begin(), offer.versions.end(), request.version) ==
      offer.versions.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        Join(directory, kVersion), " is \"", request.version,
        "\", which this backend does not know; it knows ", absl::StrJoin(offer.versions, ",")));
  }
  if (request.ring_ref == request.directory_ref) {
    return absl::InvalidArgumentError(absl::StrCat(Join(directory, kDirectoryRef), " is \"",
                                                   request.directory_ref,
                                                   "\", which is the grant of the ring"));
  }
  absl::StatusOr<bool> event_idx =
      ReadFeature(nodes, directory, kFeatureRingEventIdx, offer.ring_event_idx);
  if (!event_idx.ok()) return event_idx.status();
  request.ring_event_idx = *event_idx;
  absl::StatusOr<bool> resume =
      ReadFeature(nodes, directory, kFeatureQueueResume, offer.queue_resume);
  if (!resume.ok()) return resume.status();
  request.queue_resume = *resume;
  return request;
}

absl::StatusOr<Standing> AnswerRequest(Store& store, const BusAddress& bus,
                                       const BackendOffer& offer,
                                       const absl::StatusOr<FrontendRequest>& request,
                                       const absl::Status& answer) {
  Standing standing = Standing::kWithdrawn;
  absl::Status status = store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    standing = Standing::kWithdrawn;
    if (absl::Status there = RequireState(nodes, bus.BackendPath()); !there.ok()) return there;
    absl::StatusOr<XenbusState> frontend = ReadState(nodes, bus.FrontendPath());
    if (absl::IsUnavailable(frontend.status())) return frontend.status();
    if (!frontend.ok() ||
        (*frontend != XenbusState::kInitialised && *frontend != XenbusState::kConnected)) {
      return absl::OkStatus();
    }
    standing = Standing::kChanged;
    const absl::StatusOr<FrontendRequest> now = ReadRequest(nodes, bus, offer);
    if (absl::IsUnavailable(now.status())) return now.status();
    if (now.ok() != request.ok() || (now.ok() && *now != *request)) return absl::OkStatus();
    standing = Standing::kStands;
    XenbusState state = XenbusState::kConnected;
    if (!answer.ok()) {
      state = XenbusState::kClosing;
      // Before the state, so that who sees it finds the reason.
      absl::Status said =
          nodes.Write(Join(bus.BackendPath(), kHotplugErrorNode), ErrorText(answer));
      if (!said.ok()) return said;
    }
    return nodes.Write(Join(bus.BackendPath(), kState), StateText(state));
  });
  // It changes its nodes faster than they can be read.
  if (absl::IsAborted(status)) return Standing::kChanged;
  if (!status.ok()) return status;
  if (standing == Standing::kStands && !answer.ok()) {
    // Where xenbus looks; a domain that may own no more nodes has said it in hotplug-error.
    store.Write(BackendErrorPath(bus), ErrorText(answer)).IgnoreError();
  }
  return standing;
}

absl::StatusOr<XenbusState> ReadState(NodeAccess& nodes, absl::string_view directory) {
  absl::StatusOr<std::string> text = nodes.Read(Join(directory, kState));
  if (!text.ok()) return text.status();
  return ParseState(*text);
}

absl::Status WriteState(Store& store, absl::string_view directory, XenbusState state) {
  return WriteNodesAndState(store, std::string(directory), {}, state);
}

absl::string_view ErrorText(const absl::Status& error) {
  return error.message().substr(0, kMaxErrorBytes);
}

absl::Status NodeQuotaError(const absl::Status& refused) {
  return absl::ResourceExhaustedError(
      absl::StrCat("this domain may own no more nodes in xenstore (xenstored's --entry-nb, 1000 by "
                   "default for a domain other than Dom0; a bus takes about 20): ",
                   refused.message()));
}

absl::Status ReportBackendError(Store& store, const BusAddress& bus, const absl::Status& error) {
  absl::Status report = store.Write(BackendErrorPath(bus), ErrorText(error));
  absl::Status hotplug = store.Transaction([&](NodeAccess& nodes) {
    const std::string directory = bus.BackendPath();
    if (absl::Status status = RequireState(nodes, directory); !status.ok()) return status;
    return nodes.Write(Join(directory, kHotplugErrorNode), ErrorText(error));
  });
  report.Update(hotplug);
  return report;
}

absl::Status ReportFrontendError(Store& store, const BusAddress& bus, const absl::Status& error) {
  return store.Write(FrontendErrorPath(bus), ErrorText(error));
}

absl::Status ClearBackendError(Store& store, const BusAddress& bus) {
  const std::string node = Join(bus.BackendPath(), kHotplugErrorNode);
  absl::Status cleared = store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<std::string> text = nodes.Read(node);
    if (!text.ok()) return text.status();
    return text->empty() ? absl::OkStatus() : nodes.Write(node, "");
  });
  cleared.Update(RemoveError(store, BackendErrorPath(bus)));
  return cleared;
}

absl::Status ClearFrontendError(Store& store, const BusAddress& bus) {
  return RemoveError(store, FrontendErrorPath(bus));
}

absl::StatusOr<uint16_t> OwnDomain(NodeAccess& nodes) {
  absl::StatusOr<std::string> text = nodes.Read("domid");
  if (absl::IsNotFound(text.status())) return 0;
  if (!text.ok()) return text.status();
  absl::StatusOr<uint64_t> domain = ParseDecimal(*text, "the own domid node", 0, kLastDomain);
  if (!domain.ok()) return domain.status();
  return static_cast<uint16_t>(*domain);
}

absl::StatusOr<BusAddress> ReadOwnBus(NodeAccess& nodes, uint32_t id) {
  const std::string node = absl::StrCat("device/", kKind, "/", id, "/", kBackend);
  absl::StatusOr<std::string> path = nodes.Read(node);
  if (!path.ok()) return path.status();
  absl::StatusOr<BusAddress> bus = ParseBackendPath(*path);
  if (!bus.ok()) return bus.status();
  if (bus->id != id) {
    return absl::InvalidArgumentError(
        absl::StrCat(node, " is ", Quoted(*path), ", which is another bus than ", id));
  }
  return bus;
}

absl::StatusOr<BusAddress> ParseBackendPath(absl::string_view path) {
  const std::vector<absl::string_view> parts = absl::StrSplit(path, absl::MaxSplits('/', 8));
  // "", local, domain, B, backend, virtio-msg, F, id
  if (parts.size() != 8 || !parts[0].empty() || parts[1] != "local" || parts[2] != "domain" ||
      parts[4] != "backend" || parts[5] != kKind) {
    return absl::InvalidArgumentError(
        absl::StrCat("the backend path is ", Quoted(path),
                     "; expected /local/domain/<B>/backend/virtio-msg/<F>/<id>"));
  }
  absl::StatusOr<uint64_t> backend = ParseDecimal(parts[3], "the backend's domain", 0, kLastDomain);
  if (!backend.ok()) return backend.status();
  absl::StatusOr<uint64_t> frontend =
      ParseDecimal(parts[6], "the frontend's domain", 0, kLastDomain);
  if (!frontend.ok()) return frontend.status();
  absl::StatusOr<uint64_t> id = ParseDecimal(parts[7], "the bus id", 0, UINT32_MAX);
  if (!id.ok()) return id.status();
  return BusAddress{static_cast<uint16_t>(*frontend), static_cast<uint16_t>(*backend),
                    static_cast<uint32_t>(*id)};
}

}  // namespace vmsg::xenstore
