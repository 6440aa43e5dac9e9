// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/config_mark.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/text_value.h"

namespace vmsg::xenstore {
namespace {

constexpr char kLibxl[] = "/libxl";
constexpr char kConfig[] = "config";
constexpr char kError[] = "error";
// A node's value and path share 4096 bytes.
constexpr size_t kMaxText = 3072;

std::string MarkPath(uint64_t domain) { return absl::StrCat(kLibxl, "/", domain, "/", kKind); }

absl::StatusOr<std::string> ReadOrEmpty(NodeAccess& nodes, const std::string& path) {
  absl::StatusOr<std::string> value = nodes.Read(path);
  if (absl::IsNotFound(value.status())) return std::string();
  return value;
}

}  // namespace

absl::StatusOr<ConfigMark> ReadConfigMark(NodeAccess& nodes, uint16_t domain) {
  const std::string path = MarkPath(domain);
  if (absl::Status exists = nodes.Read(path).status(); !exists.ok()) return exists;
  absl::StatusOr<std::string> config = ReadOrEmpty(nodes, absl::StrCat(path, "/", kConfig));
  if (!config.ok()) return config.status();
  absl::StatusOr<std::string> error = ReadOrEmpty(nodes, absl::StrCat(path, "/", kError));
  if (!error.ok()) return error.status();
  return ConfigMark{.config = *std::move(config), .error = *std::move(error)};
}

absl::Status WriteConfigMark(NodeAccess& nodes, uint16_t domain, const ConfigMark& mark) {
  const std::string path = MarkPath(domain);
  absl::Status status =
      nodes.Write(absl::StrCat(path, "/", kConfig), mark.config.substr(0, kMaxText));
  if (!status.ok()) return status;
  return nodes.Write(absl::StrCat(path, "/", kError), mark.error.substr(0, kMaxText));
}

absl::StatusOr<std::vector<uint16_t>> ListConfigMarks(NodeAccess& nodes) {
  std::vector<uint16_t> domains;
  absl::StatusOr<std::vector<std::string>> names = nodes.List(kLibxl);
  if (absl::IsNotFound(names.status()) || absl::IsPermissionDenied(names.status())) return domains;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    absl::StatusOr<uint64_t> domain = ParseDecimal(name, "the domain id", 0, kLastDomain);
    if (!domain.ok() || !nodes.Read(MarkPath(*domain)).ok()) continue;
    domains.push_back(static_cast<uint16_t>(*domain));
  }
  std::sort(domains.begin(), domains.end());
  return domains;
}

}  // namespace vmsg::xenstore
