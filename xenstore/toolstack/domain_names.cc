// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/domain_names.h"

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "text/foreign_text.h"
#include "text/nearest_name.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/text_value.h"

namespace vmsg::xenstore {
namespace {

constexpr char kDomains[] = "/local/domain";
constexpr size_t kMaxLabelBytes = 64;

}  // namespace

absl::StatusOr<std::vector<uint16_t>> ListDomains(NodeAccess& nodes) {
  std::vector<uint16_t> domains;
  absl::StatusOr<std::vector<std::string>> names = nodes.List(kDomains);
  if (absl::IsNotFound(names.status())) return domains;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    absl::StatusOr<uint64_t> id = ParseDecimal(name, "a domain id", 0, kLastDomain);
    if (id.ok()) domains.push_back(static_cast<uint16_t>(*id));
  }
  std::sort(domains.begin(), domains.end());
  return domains;
}

absl::StatusOr<uint16_t> FindDomain(NodeAccess& nodes, const std::string& name_or_id,
                                    bool may_be_gone) {
  const bool is_number =
      !name_or_id.empty() && std::all_of(name_or_id.begin(), name_or_id.end(), [](char c) {
        return absl::ascii_isdigit(static_cast<unsigned char>(c));
      });
  absl::StatusOr<std::vector<uint16_t>> domains = ListDomains(nodes);
  if (!domains.ok()) return domains.status();
  if (is_number) {
    absl::StatusOr<uint64_t> id = ParseDecimal(name_or_id, "the domain id", 0, kLastDomain);
    if (!id.ok()) return id.status();
    if (may_be_gone || std::binary_search(domains->begin(), domains->end(), *id)) {
      return static_cast<uint16_t>(*id);
    }
  }
  std::vector<uint16_t> found;
  std::vector<std::string> names;
  for (const uint16_t id : *domains) {
    absl::StatusOr<std::string> name = nodes.Read(absl::StrCat(kDomains, "/", id, "/name"));
    if (!name.ok() && !absl::IsNotFound(name.status())) return name.status();
    if (!name.ok()) continue;
    if (*name == name_or_id) found.push_back(id);
    names.push_back(*name);
  }
  if (found.size() == 1) return found[0];
  if (found.empty()) {
    return absl::NotFoundError(absl::StrCat("there is no domain ", Quoted(name_or_id),
                                            " in the store", DidYouMean(name_or_id, names)));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the name ", Quoted(name_or_id), " fits the domains ",
                   absl::StrJoin(found, ", "), "; give the id instead"));
}

std::string DomainLabel(NodeAccess& nodes, uint16_t domain) {
  absl::StatusOr<std::string> name = nodes.Read(absl::StrCat(kDomains, "/", domain, "/name"));
  if (!name.ok() || name->empty()) return absl::StrCat("domain ", domain);
  return *name;
}

std::string GuestLabel(NodeAccess& nodes, uint16_t guest) {
  absl::StatusOr<std::string> name = nodes.Read(absl::StrCat(kDomains, "/", guest, "/name"));
  if (!name.ok() || name->empty()) return absl::StrCat("guest ", guest);
  return absl::StrCat("guest ", guest, " (", CleanText(*name, kMaxLabelBytes), ")");
}

}  // namespace vmsg::xenstore
