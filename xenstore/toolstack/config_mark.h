// SPDX-License-Identifier: Apache-2.0
// What a domain's xl config did for it, noted where libxl removes it together with the domain:
// /libxl/<domid>/virtio-msg. A domain with a note is not attached from a config by itself again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "xenstore/store.h"

namespace vmsg::xenstore {

struct ConfigMark {
  std::string config;  // the file; empty: it is not known which
  std::string error;   // why its entries were not attached; empty: they were
  bool operator==(const ConfigMark&) const = default;
};

// NotFound: the domain has none.
absl::StatusOr<ConfigMark> ReadConfigMark(NodeAccess& nodes, uint16_t domain);
// Replaces the one that there is.
absl::Status WriteConfigMark(NodeAccess& nodes, uint16_t domain, const ConfigMark& mark);

// The domains with a mark, ascending. Empty where this domain may not look (it is not Dom0).
absl::StatusOr<std::vector<uint16_t>> ListConfigMarks(NodeAccess& nodes);

}  // namespace vmsg::xenstore
