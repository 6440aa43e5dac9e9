// SPDX-License-Identifier: Apache-2.0
// The commands of Dom0's administrator: `xen-emu create`, `destroy`, `list`, ... as text.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/xen-emu/hypervisor.h"
#include "tools/xen-emu/store/store_server.h"

namespace vmsg::emu {

// Arguments of a command are joined by this.
inline constexpr char kArgumentSeparator = '\n';

class Commands {
 public:
  // What only the owner of the sockets can do.
  struct Sockets {
    std::function<absl::Status(const std::shared_ptr<Domain>&)> open;
    std::function<void(const std::shared_ptr<Domain>&)> close;  // and the connections
    std::function<std::string()> describe;                      // counts, for `debug`
  };

  Commands(DomainList* domains, Hypervisor* hypervisor, store::StoreServer* store, Sockets sockets)
      : domains_(*domains),
        hypervisor_(*hypervisor),
        store_(*store),
        sockets_(std::move(sockets)) {}

  // create [name] [MiB] -> domid; destroy <domain>; shutdown <domain>; list; debug; fault ...
  absl::StatusOr<std::string> Run(absl::string_view command);

 private:
  using Arguments = std::vector<absl::string_view>;
  absl::StatusOr<std::string> Create(const Arguments& arguments);
  absl::Status Destroy(absl::string_view domain);
  absl::Status ShutDown(absl::string_view domain);
  std::string List();
  std::string Debug();
  absl::StatusOr<std::string> Fault(const Arguments& arguments);
  std::string ListFaults() const;

  DomainList& domains_;
  Hypervisor& hypervisor_;
  store::StoreServer& store_;
  const Sockets sockets_;
};

}  // namespace vmsg::emu
