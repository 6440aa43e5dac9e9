// SPDX-License-Identifier: Apache-2.0
// Follows the domains that the toolstack introduces and attaches what their xl configs say, as
// `vmsgctl attach --config` would: xl itself ignores the key virtio_msg.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "xenstore/introduction/config_catalog.h"
#include "xenstore/store.h"
#include "xenstore/toolstack/attachment.h"

namespace vmsg::xenstore {

// Called from Introductions::Process.
class IntroductionListener {
 public:
  virtual ~IntroductionListener() = default;
  virtual void OnAttached(uint16_t domain, const std::string& name, const std::string& config,
                          size_t devices) = 0;
  // Nothing was attached. Said once for each domain, and noted in its ConfigMark.
  virtual void OnRefused(uint16_t domain, const std::string& name, const absl::Status& reason) = 0;
  // There is no config for a domain of that name: where one was looked for. Most domains need none.
  virtual void OnNoConfig(uint16_t domain, const std::string& name,
                          const std::string& surroundings) = 0;
  // A config of this domain has a key that is nearly one of ours.
  virtual void OnWarning(uint16_t domain, const std::string& name, const std::string& text) = 0;
  // From ConfigCatalog::Refresh.
  virtual void OnComplaint(const std::string& text) = 0;
};

// A domain is looked at when it is introduced, or when we start if it was before, and is settled
// when its config has been attached or refused: it is not attached again, whatever an administrator
// detaches. One without a config is looked at again when it is renamed (a restored or migrated
// guest gets its name last). One thread; waits for the disk.
class Introductions {
 public:
  // Looks at the entries of a config before the first is attached: not OK, and none is.
  using Check = absl::AnyInvocable<absl::Status(const std::vector<AttachItem>&)>;

  // `store` and `listener` outlive it. `self`: the domain of the connection; `check` (may be null)
  // is for what is served there. PermissionDenied: it is not a control domain.
  static absl::StatusOr<std::unique_ptr<Introductions>> Start(Store* store,
                                                              IntroductionListener* listener,
                                                              ConfigCatalog catalog, uint16_t self,
                                                              Check check);
  Introductions(const Introductions&) = delete;
  Introductions& operator=(const Introductions&) = delete;
  ~Introductions();

  // Takes a bounded number of watch events and looks at a bounded number of domains. Call it when
  // store->fd() is readable and again, soon, while it returns true. An error: the store is lost.
  absl::StatusOr<bool> Process();

 private:
  struct Domain {
    bool settled = false;
    bool watched = false;  // its name
    std::string name;      // as last looked at
  };

  Introductions(Store* store, IntroductionListener* listener, ConfigCatalog catalog, uint16_t self,
                Check check)
      : store_(store),
        listener_(listener),
        catalog_(std::move(catalog)),
        self_(self),
        check_(std::move(check)) {}

  absl::Status Scan();
  absl::Status Look(uint16_t id);
  absl::Status Settle(uint16_t id);
  absl::Status Attach(uint16_t id, const ConfigCatalog::Found& found);
  void Refuse(uint16_t id, const std::string& config, const absl::Status& reason);

  Store* const store_;
  IntroductionListener* const listener_;
  ConfigCatalog catalog_;
  const uint16_t self_;
  Check check_;
  bool scan_ = true;
  absl::btree_map<uint16_t, Domain> domains_;
  absl::btree_set<uint16_t> look_;
};

}  // namespace vmsg::xenstore
