// SPDX-License-Identifier: Apache-2.0
// Random sequences of xenstore requests, the same for the same seed.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace vmsg::emu::store::differential {

// Who asks. Domains 5 and 6 are guests, 7 exists without being introduced, 9 does not exist.
struct Actor {
  const char* name;
  uint16_t domain;
};
inline constexpr Actor kActors[] = {{"dom0-a", 0}, {"dom0-b", 0}, {"guest5", 5}, {"guest6", 6}};
inline constexpr int kActorCount = 4;
inline constexpr uint16_t kGuests[] = {5, 6};
inline constexpr uint16_t kExisting[] = {0, 5, 6, 7};

// The port a guest is introduced with.
inline constexpr uint32_t kGuestPort = 1;

struct Step {
  enum class Kind { kRequest, kOversize, kReintroduce };
  Kind kind = Kind::kRequest;
  int actor = 0;
  uint32_t type = 0;
  // Transactions are numbered by the servers; a step names them by slot. -1: none; kWrongSlot: an
  // id that no server gave out.
  int slot = -1;
  std::string payload;
  uint16_t domain = 0;  // kReintroduce: released, then introduced again
};
inline constexpr int kSlots = 3;
inline constexpr int kWrongSlot = kSlots;

std::string Describe(const Step& step);

class Generator {
 public:
  explicit Generator(uint64_t seed) : targets_(seed % 2 == 1), random_(seed) {}
  Step Next();
  // The first steps of every run: what libxl does before guests come.
  static std::vector<Step> Setup();

 private:
  Step Draw();
  size_t Below(size_t limit) { return random_() % limit; }
  std::string Path();
  std::string Value();
  std::string PermissionStrings();
  std::string Malformed();

  // xenstored 4.17 keeps a domain that is another's target alive when it is released. So either
  // guest 5 gets guest 6 as its target and 6 is never released, or there are no targets.
  const bool targets_;
  std::mt19937_64 random_;
};

}  // namespace vmsg::emu::store::differential
