// SPDX-License-Identifier: Apache-2.0
// The contract of grants/*.h and xenstore/store.h on a real Xen. The program runs in a domain;
// VMSG_XEN_MACHINE names the script that asks the toolstack (dom0/contract-machine of this folder):
//   domid            this domain's number
//   guest            the number of a running guest, started if need be
//   destroy          destroys it
//   mappings DOMID   how often pages of that domain are mapped
//   peer ARGUMENT... runs contract-peer in the guest until SIGTERM
#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tests/contract/event_pair.h"
#include "tests/contract/store/store_under_test.h"
#include "tests/contract/xen_under_test.h"

namespace vmsg::test {
namespace {

constexpr char kPeerProgram[] = "contract-peer";

std::string MachineScript() {
  const char* script = getenv("VMSG_XEN_MACHINE");
  return script == nullptr ? "VMSG_XEN_MACHINE-is-not-set" : script;
}

absl::StatusOr<long> AskMachine(const std::string& question) {
  const std::string command = absl::StrCat(MachineScript(), " ", question);
  FILE* answer = popen(command.c_str(), "re");
  if (answer == nullptr) return absl::UnavailableError(command);
  std::string text;
  for (int c; (c = fgetc(answer)) != EOF;) text.push_back(static_cast<char>(c));
  const int status = pclose(answer);
  long number = 0;
  if (status != 0 || !absl::SimpleAtoi(absl::StripSuffix(text, "\n"), &number)) {
    return absl::UnavailableError(absl::StrCat(command, ": status ", status, ", \"", text, "\""));
  }
  return number;
}

class RealXen : public XenUnderTest {
 public:
  absl::Status DestroyGuest() override { return AskMachine("destroy").status(); }
  absl::StatusOr<long> MappingsLeft() override {
    return AskMachine(absl::StrCat("mappings ", guest.id));
  }
};

// Asked once: a program takes its time in QEMU.
const absl::StatusOr<long>& ThisDomain() {
  static const absl::StatusOr<long> id = AskMachine("domid");
  return id;
}

absl::Status OpenThisDomain(XenUnderTest::Side* side) {
  const absl::StatusOr<long>& id = ThisDomain();
  if (!id.ok()) return id.status();
  auto platform = grants::OpenPlatform("native");
  if (!platform.ok()) return platform.status();
  *side = {static_cast<grants::DomainId>(*id), {kPeerProgram, "native"}, *std::move(platform)};
  return absl::OkStatus();
}

// This domain on both sides: Xen lets a domain map what it granted itself.
absl::StatusOr<std::unique_ptr<XenUnderTest>> MakeLoopback() {
  auto xen = std::make_unique<RealXen>();
  if (absl::Status status = OpenThisDomain(&xen->backend); !status.ok()) return status;
  if (absl::Status status = OpenThisDomain(&xen->guest); !status.ok()) return status;
  return xen;
}

// This domain, and the guest.
absl::StatusOr<std::unique_ptr<XenUnderTest>> MakeTwoDomains() {
  auto xen = std::make_unique<RealXen>();
  if (absl::Status status = OpenThisDomain(&xen->backend); !status.ok()) return status;
  auto guest = AskMachine("guest");
  if (!guest.ok()) return guest.status();
  xen->guest = {
      static_cast<grants::DomainId>(*guest), {MachineScript(), "peer", "native"}, nullptr, SIGTERM};
  return xen;
}

// This domain's own connection, whatever it is: Dom0's to the socket, a guest's through its kernel.
class RealStore : public StoreUnderTest {
 public:
  absl::StatusOr<std::unique_ptr<xenstore::Store>> Open() override {
    return xenstore::OpenStore("");
  }
};

absl::StatusOr<std::unique_ptr<StoreUnderTest>> MakeStore() {
  const absl::StatusOr<long>& id = ThisDomain();
  if (!id.ok()) return id.status();
  auto xen = std::make_unique<RealStore>();
  xen->domain = static_cast<uint16_t>(*id);
  if (xen->domain != 0) return xen;
  static const absl::StatusOr<long> guest = AskMachine("guest");  // nothing here ends it
  if (!guest.ok()) return guest.status();
  xen->other = static_cast<uint16_t>(*guest);
  return xen;
}

const StoreFactory kThisDomain = {"ThisDomain", MakeStore};

INSTANTIATE_TEST_SUITE_P(On, StoreContract, ::testing::Values(kThisDomain), StoreFactoryName);
INSTANTIATE_TEST_SUITE_P(On, GuestStoreContract, ::testing::Values(kThisDomain), StoreFactoryName);
INSTANTIATE_TEST_SUITE_P(On, Dom0StoreContract, ::testing::Values(kThisDomain), StoreFactoryName);

const XenFactory kLoopback = {"Loopback", MakeLoopback};
const XenFactory kTwoDomains = {"TwoDomains", MakeTwoDomains};

INSTANTIATE_TEST_SUITE_P(On, GrantContract, ::testing::Values(kLoopback), FactoryName);
INSTANTIATE_TEST_SUITE_P(On, EventContract, ::testing::Values(kLoopback), FactoryName);
INSTANTIATE_TEST_SUITE_P(On, EventPairContract, ::testing::Values(kLoopback), FactoryName);
INSTANTIATE_TEST_SUITE_P(On, DeathContract, ::testing::Values(kLoopback), FactoryName);
INSTANTIATE_TEST_SUITE_P(On, PeerContract, ::testing::Values(kTwoDomains), FactoryName);

}  // namespace
}  // namespace vmsg::test
