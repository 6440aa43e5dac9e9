// SPDX-License-Identifier: Apache-2.0
// Domains by the name or id that an administrator gives.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "xenstore/store.h"

namespace vmsg::xenstore {

// A domain by id or name. NotFound: there is none; FailedPrecondition: the name fits several.
// `may_be_gone`: an id needs no living domain, so that what one left behind can be removed.
absl::StatusOr<uint16_t> FindDomain(NodeAccess& nodes, const std::string& name_or_id,
                                    bool may_be_gone = false);
// The name of a domain, or "domain <id>".
std::string DomainLabel(NodeAccess& nodes, uint16_t domain);
// "guest 3 (g1)", or "guest 3" where the name cannot be read (in a driver domain): for the log. The
// name is cleaned and cut.
std::string GuestLabel(NodeAccess& nodes, uint16_t guest);
// Every domain in the store, ascending.
absl::StatusOr<std::vector<uint16_t>> ListDomains(NodeAccess& nodes);

}  // namespace vmsg::xenstore
