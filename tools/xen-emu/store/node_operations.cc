// SPDX-License-Identifier: Apache-2.0
// The requests on nodes.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tools/xen-emu/store/operations.h"
#include "tools/xen-emu/store/tree/paths.h"

namespace vmsg::emu::store {
namespace {

std::string Absolute(const Session& session, std::string path) {
  if (absl::StartsWith(path, "/") || absl::StartsWith(path, "@")) return path;
  return absl::StrCat(DomainPath(session.domain), "/", path);
}

}  // namespace

int Operations::ReadNode(Request& request, NodeRef* node) {
  std::optional<std::string> path = SingleString(request.message.payload);
  if (!path.has_value()) return EINVAL;
  return nodes_.Read(request.caller, Absolute(request.session, *path), node);
}

int Operations::Directory(Request& request) {
  NodeRef node;
  if (int error = ReadNode(request, &node); error != 0) return error;
  request.reply = node->children;
  return 0;
}

int Operations::DirectoryPart(Request& request) {
  const std::string& payload = request.message.payload;
  size_t count = 0;
  std::vector<std::string> strings = SplitStrings(payload, 2, &count);
  if (count != 2) return EINVAL;
  NodeRef node;
  int error = nodes_.Read(request.caller, Absolute(request.session, strings[0]), &node);
  if (error != 0) return error;

  // The generation lets the client see that the list changed between two parts; an empty string
  // ends the last part.
  request.reply = absl::StrCat(node->generation, absl::string_view("", 1));
  const std::string& children = node->children;
  const size_t offset = static_cast<uint32_t>(std::atoi(strings[1].c_str()));
  size_t end = std::min(offset, children.size());
  const size_t room = kPayloadLimit - request.reply.size() - 1;
  while (end < children.size()) {
    size_t next = children.find('\0', end) + 1;
    if (next - offset > room) break;
    end = next;
  }
  if (end > offset) request.reply += children.substr(offset, end - offset);
  if (end == children.size()) request.reply.push_back('\0');
  return 0;
}

int Operations::Read(Request& request) {
  NodeRef node;
  if (int error = ReadNode(request, &node); error != 0) return error;
  request.reply = node->value;
  return 0;
}

int Operations::GetPermissions(Request& request) {
  NodeRef node;
  if (int error = ReadNode(request, &node); error != 0) return error;
  request.reply = FormatPermissions(node->permissions);
  return 0;
}

int Operations::Write(Request& request) {
  // The value is what follows the path's NUL, NULs included.
  absl::string_view payload = request.message.payload;
  size_t end = payload.find('\0');
  if (end == absl::string_view::npos) return EINVAL;
  return nodes_.Write(request.caller,
                      Absolute(request.session, std::string(payload.substr(0, end))),
                      payload.substr(end + 1));
}

int Operations::MakeDirectory(Request& request) {
  std::optional<std::string> path = SingleString(request.message.payload);
  if (!path.has_value()) return EINVAL;
  return nodes_.MakeDirectory(request.caller, Absolute(request.session, *path));
}

int Operations::Remove(Request& request) {
  std::optional<std::string> path = SingleString(request.message.payload);
  if (!path.has_value()) return EINVAL;
  return nodes_.Remove(request.caller, Absolute(request.session, *path));
}

int Operations::SetPermissions(Request& request) {
  absl::string_view payload = request.message.payload;
  const size_t count = static_cast<size_t>(std::count(payload.begin(), payload.end(), '\0'));
  if (count < 2) return EINVAL;
  if (!request.caller.requester.privileged && count - 1 > options_.quotas.permissions) {
    return ENOSPC;
  }
  const size_t end = payload.find('\0');
  std::string path(payload.substr(0, end));
  payload = payload.substr(end + 1, payload.rfind('\0') - end);
  std::optional<Permissions> permissions = ParsePermissions(payload);
  if (!permissions.has_value()) return EINVAL;

  if (!absl::StartsWith(path, "@")) {
    return nodes_.SetPermissions(request.caller, Absolute(request.session, std::move(path)),
                                 *std::move(permissions));
  }
  for (PermissionEntry& entry : *permissions) {
    entry.stale = domains_.FindExisting(entry.domain) == nullptr;
  }
  if (permissions->front().stale) return ENOENT;
  auto special = special_.find(path);
  if (special == special_.end()) return EINVAL;
  if (!(RightsOf(request.caller.requester, special->second) & kOwner)) return EACCES;
  special->second = *std::move(permissions);
  return 0;
}

}  // namespace vmsg::emu::store
