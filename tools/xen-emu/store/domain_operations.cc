// SPDX-License-Identifier: Apache-2.0
// The life of domains, as requests and as the toolstack calls it.
#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "tools/xen-emu/store/operations.h"
#include "tools/xen-emu/store/tree/paths.h"

namespace vmsg::emu::store {
namespace {

constexpr uint32_t kDomainSelf = 0x7FF0;

// As lenient as xenstored, which takes what atoi makes of it.
uint32_t DomainId(const std::string& text) {
  return static_cast<uint32_t>(std::atoi(text.c_str()));
}

}  // namespace

bool Operations::Introduce(uint16_t id) {
  Domain& domain = domains_.FindOrAdd(id);
  if (domain.introduced) return false;
  domain.introduced = true;
  domain.shut_down = false;
  FireSpecial("@introduceDomain");
  return true;
}

bool Operations::Release(uint16_t id) {
  Domain* domain = domains_.Find(id);
  if (id == 0 || domain == nullptr) return false;
  for (Session* session : sessions_) {
    if (session->domain != id) continue;
    Forget(*session);
    session->closing = true;
    woken_(*session);
  }
  const bool introduced = domain->introduced;
  nodes_.RemoveOwnedBy(id);
  for (auto& [name, permissions] : special_) {
    if (permissions[0].domain == id) permissions[0].domain = 0;
    permissions.erase(
        std::remove_if(permissions.begin() + 1, permissions.end(),
                       [id](const PermissionEntry& entry) { return entry.domain == id; }),
        permissions.end());
  }
  domains_.Erase(id);
  if (introduced) FireSpecial("@releaseDomain");
  return true;
}

bool Operations::ShutDown(uint16_t id) {
  Domain* domain = domains_.Find(id);
  if (domain == nullptr || !domain->introduced) return false;
  if (domain->shut_down) return true;
  domain->shut_down = true;
  FireSpecial("@releaseDomain");
  return true;
}

bool Operations::IsIntroduced(uint32_t id) const {
  const Domain* domain = domains_.Find(id);
  return domain != nullptr && domain->introduced;
}

int Operations::IntroduceDomain(Request& request) {
  size_t count = 0;
  std::vector<std::string> strings = SplitStrings(request.message.payload, 3, &count);
  if (count < 3) return EINVAL;
  const uint32_t id = DomainId(strings[0]);
  if (std::atoi(strings[2].c_str()) <= 0) return EINVAL;  // the event channel
  if (domains_.FindExisting(id) == nullptr) return EINVAL;
  if (Introduce(static_cast<uint16_t>(id)) || id == 0) return 0;
  // Introduced again: the domain starts its connection over.
  for (Session* session : sessions_) {
    if (session->domain == id) Forget(*session);
  }
  return 0;
}

Domain* Operations::DomainArgument(const Request& request, uint32_t* id, int* error) {
  *error = EINVAL;
  std::optional<std::string> text = SingleString(request.message.payload);
  if (!text.has_value()) return nullptr;
  *id = DomainId(*text);
  if (*id == 0) return nullptr;
  *error = ENOENT;
  Domain* domain = domains_.Find(*id);
  return domain != nullptr && domain->introduced ? domain : nullptr;
}

int Operations::ReleaseDomain(Request& request) {
  uint32_t id;
  int error;
  if (DomainArgument(request, &id, &error) == nullptr) return error;
  Release(static_cast<uint16_t>(id));
  return 0;
}

int Operations::ResumeDomain(Request& request) {
  uint32_t id;
  int error;
  Domain* domain = DomainArgument(request, &id, &error);
  if (domain == nullptr) return error;
  domain->shut_down = false;
  return 0;
}

int Operations::SetTarget(Request& request) {
  size_t count = 0;
  std::vector<std::string> strings = SplitStrings(request.message.payload, 2, &count);
  if (count < 2) return EINVAL;
  const uint32_t target = DomainId(strings[1]);
  Domain* domain = domains_.Find(DomainId(strings[0]));
  if (domain == nullptr || !domain->introduced || !IsIntroduced(target)) return ENOENT;
  domain->target = target;
  return 0;
}

int Operations::GetDomainPath(Request& request) {
  std::optional<std::string> id = SingleString(request.message.payload);
  if (!id.has_value()) return EINVAL;
  request.reply = absl::StrCat(DomainPath(DomainId(*id)), absl::string_view("", 1));
  return 0;
}

int Operations::IsDomainIntroduced(Request& request) {
  std::optional<std::string> id = SingleString(request.message.payload);
  if (!id.has_value()) return EINVAL;
  const bool introduced = DomainId(*id) == kDomainSelf || IsIntroduced(DomainId(*id));
  request.reply = std::string(introduced ? "T" : "F", 2);
  return 0;
}

}  // namespace vmsg::emu::store
