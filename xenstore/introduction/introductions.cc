// SPDX-License-Identifier: Apache-2.0
#include "xenstore/introduction/introductions.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/text_value.h"
#include "xenstore/toolstack/attachment.h"
#include "xenstore/toolstack/config_mark.h"
#include "xenstore/toolstack/domain_names.h"

namespace vmsg::xenstore {
namespace {

constexpr char kIntroduced[] = "@introduceDomain";
constexpr char kReleased[] = "@releaseDomain";
constexpr char kDomainsToken[] = "domains";
constexpr char kNameToken[] = "name";
constexpr size_t kEventsPerTurn = 256;
constexpr size_t kLooksPerTurn = 32;

std::string NamePath(uint16_t id) { return absl::StrCat("/local/domain/", id, "/name"); }

}  // namespace

absl::StatusOr<std::unique_ptr<Introductions>> Introductions::Start(Store* store,
                                                                    IntroductionListener* listener,
                                                                    ConfigCatalog catalog,
                                                                    uint16_t self, Check check) {
  // Every domain may watch; only a control domain is told, and only it may ask.
  if (absl::Status may_ask = store->IsDomainIntroduced(self).status(); !may_ask.ok()) {
    return may_ask;
  }
  auto introductions = std::unique_ptr<Introductions>(
      new Introductions(store, listener, std::move(catalog), self, std::move(check)));
  for (const char* special : {kIntroduced, kReleased}) {
    if (absl::Status status = store->Watch(special, kDomainsToken); !status.ok()) return status;
  }
  return introductions;
}

Introductions::~Introductions() {
  for (const char* special : {kIntroduced, kReleased}) {
    store_->Unwatch(special, kDomainsToken).IgnoreError();
  }
  for (const auto& [id, domain] : domains_) {
    if (domain.watched) store_->Unwatch(NamePath(id), kNameToken).IgnoreError();
  }
}

absl::StatusOr<bool> Introductions::Process() {
  absl::StatusOr<std::vector<WatchEvent>> events = store_->TakeWatchEvents(kEventsPerTurn);
  if (!events.ok()) return events.status();
  for (const WatchEvent& event : *events) {
    if (event.token == kDomainsToken) {
      scan_ = true;
    } else if (event.token == kNameToken) {
      const std::vector<absl::string_view> parts = absl::StrSplit(event.path, '/');
      if (parts.size() < 4) continue;
      absl::StatusOr<uint64_t> id = ParseDecimal(parts[3], "the domain id", 0, kLastDomain);
      if (id.ok()) look_.insert(static_cast<uint16_t>(*id));
    }
  }
  if (std::exchange(scan_, false)) {
    if (absl::Status status = Scan(); !status.ok()) return status;
  }
  if (!look_.empty()) {
    for (const std::string& complaint : catalog_.Refresh()) listener_->OnComplaint(complaint);
  }
  for (size_t i = 0; i < kLooksPerTurn && !look_.empty(); ++i) {
    const uint16_t id = *look_.begin();
    look_.erase(look_.begin());
    if (absl::Status status = Look(id); !status.ok()) return status;
  }
  return events->size() == kEventsPerTurn || scan_ || !look_.empty();
}

absl::Status Introductions::Scan() {
  absl::StatusOr<std::vector<uint16_t>> ids = ListDomains(*store_);
  if (!ids.ok()) return absl::IsUnavailable(ids.status()) ? ids.status() : absl::OkStatus();
  for (auto it = domains_.begin(); it != domains_.end();) {
    if (std::binary_search(ids->begin(), ids->end(), it->first)) {
      ++it;
      continue;
    }
    if (it->second.watched) store_->Unwatch(NamePath(it->first), kNameToken).IgnoreError();
    it = domains_.erase(it);
  }
  for (const uint16_t id : *ids) {
    if (id != 0 && id != self_ && !domains_.contains(id)) look_.insert(id);
  }
  return absl::OkStatus();
}

absl::Status Introductions::Look(uint16_t id) {
  if (auto known = domains_.find(id); known != domains_.end() && known->second.settled) {
    return absl::OkStatus();
  }
  absl::StatusOr<bool> introduced = store_->IsDomainIntroduced(id);
  if (absl::IsUnavailable(introduced.status())) return introduced.status();
  // Still being built: its introduction is yet to come.
  if (!introduced.ok() || !*introduced) return absl::OkStatus();

  absl::StatusOr<ConfigMark> mark = ReadConfigMark(*store_, id);
  if (mark.ok()) return Settle(id);
  if (absl::IsUnavailable(mark.status())) return mark.status();

  Domain& domain = domains_[id];
  if (!domain.watched) {
    absl::Status watch = store_->Watch(NamePath(id), kNameToken);
    if (absl::IsUnavailable(watch)) return watch;
    domain.watched = watch.ok();
  }
  absl::StatusOr<std::string> name = store_->Read(NamePath(id));
  if (absl::IsUnavailable(name.status())) return name.status();
  if (!name.ok() || name->empty() || *name == domain.name) return absl::OkStatus();
  domain.name = *name;

  absl::StatusOr<std::optional<ConfigCatalog::Found>> found = catalog_.Find(*name);
  for (const std::string& warning : catalog_.Warnings(*name)) {
    listener_->OnWarning(id, *name, warning);
  }
  if (found.ok() && !found->has_value()) {  // until it is renamed
    listener_->OnNoConfig(id, *name, catalog_.Surroundings(*name));
    return absl::OkStatus();
  }
  if (!found.ok()) {
    Refuse(id, "", found.status());
  } else if (absl::Status attached = Attach(id, **found); !attached.ok()) {
    if (absl::IsUnavailable(attached)) return attached;
    Refuse(id, (*found)->path, attached);
  }
  return Settle(id);
}

absl::Status Introductions::Settle(uint16_t id) {
  Domain& domain = domains_[id];
  domain.settled = true;
  if (!std::exchange(domain.watched, false)) return absl::OkStatus();
  absl::Status status = store_->Unwatch(NamePath(id), kNameToken);
  return absl::IsUnavailable(status) ? status : absl::OkStatus();
}

absl::Status Introductions::Attach(uint16_t id, const ConfigCatalog::Found& found) {
  const XlConfig& config = found.config;
  if (!config.problem.ok()) return config.problem;
  uint16_t backend = self_;
  if (config.backend.has_value()) {
    absl::StatusOr<uint16_t> named = FindDomain(*store_, *config.backend);
    if (!named.ok()) {
      return absl::Status(
          named.status().code(),
          absl::StrCat(found.path, ": virtio_msg_backend: ", named.status().message()));
    }
    backend = *named;
  }
  if (backend == self_ && check_ != nullptr) {
    if (absl::Status checked = check_(ItemsOfConfig(found.path, config)); !checked.ok()) {
      return checked;
    }
  }
  AttachPlan plan = PlanAttachment(id, backend, ItemsOfConfig(found.path, config));
  auto created = WriteAttachment(*store_, plan, found.path);
  if (!created.ok()) return created.status();
  listener_->OnAttached(id, domains_[id].name, found.path, config.entries.size());
  return absl::OkStatus();
}

void Introductions::Refuse(uint16_t id, const std::string& config, const absl::Status& reason) {
  listener_->OnRefused(id, domains_[id].name, reason);
  // Not for a domain that is gone meanwhile: nobody would remove it.
  store_
      ->Transaction([&](NodeAccess& nodes) -> absl::Status {
        if (absl::Status exists = nodes.Read(absl::StrCat("/local/domain/", id)).status();
            !exists.ok()) {
          return exists;
        }
        return WriteConfigMark(nodes, id,
                               {.config = config, .error = std::string(reason.message())});
      })
      .IgnoreError();
}

}  // namespace vmsg::xenstore
