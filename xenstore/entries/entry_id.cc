// SPDX-License-Identifier: Apache-2.0
#include "xenstore/entries/entry_id.h"

#include <random>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmsg::xenstore {

std::string NewEntryId() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
}

absl::StatusOr<std::string> ReadEntryId(NodeAccess& nodes, absl::string_view path) {
  absl::StatusOr<std::string> id = nodes.Read(absl::StrCat(path, "/", kEntryId));
  if (absl::IsNotFound(id.status())) return std::string();
  return id;
}

absl::Status RequireEntry(NodeAccess& nodes, const EntryAddress& entry) {
  const std::string path = entry.Path();
  if (absl::Status exists = nodes.Read(absl::StrCat(path, "/", kType)).status(); !exists.ok()) {
    return exists;
  }
  absl::StatusOr<std::string> id = ReadEntryId(nodes, path);
  if (!id.ok()) return id.status();
  if (*id != entry.id) {
    return absl::NotFoundError(absl::StrCat(path, " is another entry by now, and stays"));
  }
  return absl::OkStatus();
}

}  // namespace vmsg::xenstore
