// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated-store/differential/generator.h"

#include <cerrno>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tools/xen-emu/store/wire/message.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store::differential {
namespace {

const absl::string_view kNul("", 1);

struct Weighted {
  uint32_t type;
  int weight;
};
constexpr Weighted kTypes[] = {
    {XS_WRITE, 22},
    {XS_READ, 14},
    {XS_MKDIR, 6},
    {XS_RM, 9},
    {XS_DIRECTORY, 8},
    {XS_DIRECTORY_PART, 3},
    {XS_GET_PERMS, 5},
    {XS_SET_PERMS, 12},
    {XS_WATCH, 8},
    {XS_UNWATCH, 3},
    {XS_RESET_WATCHES, 1},
    {XS_TRANSACTION_START, 7},
    {XS_TRANSACTION_END, 9},
    {XS_GET_DOMAIN_PATH, 1},
    {XS_IS_DOMAIN_INTRODUCED, 1},
    {XS_SET_TARGET, 1},
    {XS_RESUME, 1},
    {XS_WATCH_EVENT, 1},
    {XS_ERROR, 1},
    {77, 1},
};

}  // namespace

std::string Describe(const Step& step) {
  static const char* const kNames[] = {"CONTROL",
                                       "DIRECTORY",
                                       "READ",
                                       "GET_PERMS",
                                       "WATCH",
                                       "UNWATCH",
                                       "TRANSACTION_START",
                                       "TRANSACTION_END",
                                       "INTRODUCE",
                                       "RELEASE",
                                       "GET_DOMAIN_PATH",
                                       "WRITE",
                                       "MKDIR",
                                       "RM",
                                       "SET_PERMS",
                                       "WATCH_EVENT",
                                       "ERROR",
                                       "IS_DOMAIN_INTRODUCED",
                                       "RESUME",
                                       "SET_TARGET"};
  const char* actor = kActors[step.actor].name;
  if (step.kind == Step::Kind::kOversize) return absl::StrCat(actor, " oversize");
  if (step.kind == Step::Kind::kReintroduce) {
    return absl::StrCat(actor, " release and introduce ", step.domain);
  }
  std::string type = step.type < std::size(kNames) ? kNames[step.type] : absl::StrCat(step.type);
  std::string payload =
      step.payload.size() > 200
          ? absl::StrCat(absl::CEscape(step.payload.substr(0, 100)), "... of ", step.payload.size())
          : absl::CEscape(step.payload);
  return absl::StrCat(actor, " ", type, " slot ", step.slot, " \"", payload, "\"");
}

std::vector<Step> Generator::Setup() {
  std::vector<Step> steps;
  auto ask = [&](uint32_t type, std::string payload) {
    steps.push_back({.type = type, .payload = std::move(payload)});
  };
  for (uint16_t guest : kGuests) {
    const std::string home = absl::StrCat("/local/domain/", guest);
    ask(XS_MKDIR, absl::StrCat(home, kNul));
    ask(XS_SET_PERMS, absl::StrCat(home, kNul, "n", guest, kNul));
    ask(XS_WRITE, absl::StrCat(home, "/name", kNul, "guest"));
    ask(XS_SET_PERMS, absl::StrCat(home, "/name", kNul, "n0", kNul, "r", guest, kNul));
  }
  return steps;
}

std::string Generator::Path() {
  static const char* const kPaths[] = {"/a",
                                       "/a/b",
                                       "/a/b/c",
                                       "/a/d",
                                       "/local/domain/5",
                                       "/local/domain/5/x",
                                       "/local/domain/5/x/y",
                                       "/local/domain/5/z",
                                       "/local/domain/6",
                                       "/local/domain/6/x",
                                       "/local/domain/6/x/y",
                                       "/local/domain/0/x",
                                       "/local/domain/5/name",
                                       "x",
                                       "x/y",
                                       "x/y/w",
                                       "z",
                                       "name"};
  static const char* const kOdd[] = {"/",
                                     "",
                                     "/a/",
                                     "//a",
                                     "/a b",
                                     "x//y",
                                     "@introduceDomain",
                                     "@releaseDomain",
                                     "@foo",
                                     "/local",
                                     "/local/domain",
                                     "/local/domain/7/x",
                                     "/local/domain/123456/x",
                                     "/tool/xenstored",
                                     "@",
                                     "/a\x80",
                                     "a/@b",
                                     "/local/domain/5/"};
  if (Below(10) != 0) return kPaths[Below(std::size(kPaths))];
  if (Below(8) == 0) {
    // Around the limit, with and without the part that does not count.
    const std::string prefix = Below(2) == 0 ? "/" : "/local/domain/5/";
    return absl::StrCat(prefix, std::string(2040 + Below(16), 'p'));
  }
  return kOdd[Below(std::size(kOdd))];
}

std::string Generator::Value() {
  switch (Below(12)) {
    case 0:
      return "";
    case 1:
      return std::string("a\0b", 3);
    case 2:
      return std::string(1990 + Below(60), 'v');  // around the quota on a node's size
    default:
      return absl::StrCat("v", Below(100));
  }
}

std::string Generator::PermissionStrings() {
  static constexpr uint16_t kDomains[] = {0, 5, 5, 6, 6, 7, 9};
  if (Below(25) == 0) {
    static const char* const kOdd[] = {"", "x5", "r", "rr5", "b5x", "n-1", "r0x5", "r 5", "w99999"};
    return absl::StrCat(kOdd[Below(std::size(kOdd))], kNul);
  }
  std::string strings;
  const size_t count = Below(12) == 0 ? 4 + Below(4) : 1 + Below(3);
  for (size_t i = 0; i < count; ++i) {
    absl::StrAppend(&strings, std::string(1, "nrwb"[Below(4)]),
                    kDomains[Below(std::size(kDomains))], kNul);
  }
  return strings;
}

std::string Generator::Malformed() {
  switch (Below(4)) {
    case 0:
      return "";
    case 1:
      return "no-nul";
    case 2:
      return absl::StrCat("a", kNul, "b", kNul, "c", kNul);
    default:
      return absl::StrCat("a", kNul, "rest");
  }
}

Step Generator::Next() {
  // What is too long for a message is a kind of its own.
  Step step = Draw();
  while (step.payload.size() > kPayloadLimit) step = Draw();
  return step;
}

Step Generator::Draw() {
  Step step{.actor = static_cast<int>(Below(kActorCount))};
  if (Below(400) == 0) {
    step.actor = static_cast<int>(Below(2));
    step.kind = Step::Kind::kReintroduce;
    step.domain = targets_ ? 5 : kGuests[Below(2)];
    return step;
  }
  if (Below(500) == 0) {
    step.actor = static_cast<int>(Below(2));
    step.kind = Step::Kind::kOversize;
    return step;
  }
  int total = 0;
  for (const Weighted& entry : kTypes) total += entry.weight;
  int at = static_cast<int>(Below(static_cast<size_t>(total)));
  for (const Weighted& entry : kTypes) {
    step.type = entry.type;
    if ((at -= entry.weight) < 0) break;
  }
  if (Below(2) == 0) step.slot = static_cast<int>(Below(kSlots));
  if (Below(60) == 0) step.slot = kWrongSlot;

  switch (step.type) {
    case XS_WRITE:
      step.payload = absl::StrCat(Path(), kNul, Value());
      break;
    case XS_SET_PERMS: {
      std::string path = Path();
      // A refusal for a special path is answered with whatever failed before it.
      const bool special = path == "@introduceDomain" || path == "@releaseDomain";
      if (!path.empty() && path[0] == '@' && !(special && step.actor < 2)) path = "/a";
      // A guest that owned the root would take the whole tree along when it is released.
      if (path == "/") path = "/a/b";
      step.payload = absl::StrCat(path, kNul, PermissionStrings());
      break;
    }
    case XS_WATCH:
    case XS_UNWATCH:
      step.payload = absl::StrCat(Path(), kNul, "t", Below(3), kNul);
      break;
    case XS_DIRECTORY_PART:
      step.payload = absl::StrCat(Path(), kNul, Below(3) == 0 ? Below(12) : 0, kNul);
      break;
    case XS_TRANSACTION_START:
      step.slot = Below(20) == 0 ? static_cast<int>(Below(kSlots)) : -1;
      step.payload = std::string(kNul);
      break;
    case XS_TRANSACTION_END:
      if (step.slot < 0 && Below(4) != 0) step.slot = static_cast<int>(Below(kSlots));
      step.payload = absl::StrCat(Below(5) == 0 ? "F" : "T", kNul);
      if (Below(25) == 0) step.payload = Malformed();
      return step;
    case XS_RESET_WATCHES:
      // Within a transaction it ends a xenstored that has no fix for CVE-2026-23557, as that of a
      // Debian 12 without its security updates.
      step.slot = -1;
      step.payload = absl::StrCat(Path(), kNul);
      return step;
    case XS_GET_DOMAIN_PATH:
    case XS_IS_DOMAIN_INTRODUCED:
    case XS_RESUME: {
      static const char* const kIds[] = {"0", "5", "6", "7", "9", "32752", "-1", "x", "70000"};
      step.payload = absl::StrCat(kIds[Below(std::size(kIds))], kNul);
      break;
    }
    case XS_SET_TARGET:
      step.payload = absl::StrCat(targets_ ? "5" : "7", kNul, Below(4) == 0 ? "9" : "6", kNul);
      return step;
    default:
      step.payload = absl::StrCat(Path(), kNul);
      return step;
  }
  // xenstored's answer to a malformed single path depends on what failed before it (the default
  // case above), so those are not compared.
  if (Below(40) == 0) step.payload = Malformed();
  return step;
}

}  // namespace vmsg::emu::store::differential
