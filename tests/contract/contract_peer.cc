// SPDX-License-Identifier: Apache-2.0
// A process in a domain that holds something until it is killed:
//   contract-peer <xen> map <domid> <ref>...     maps them; prints 1
//   contract-peer <xen> share <domid> <pages>    grants them; prints the references
//   contract-peer <xen> allocate <domid>         allocates a port; prints it
//   contract-peer <xen> bind <domid> <port>      binds it; prints the local port
//   contract-peer <xen> echo <domid> <port>      binds it; prints the port; answers every event
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "grants/platform.h"

namespace {

using vmsg::grants::Access;
using vmsg::grants::EventChannels;

int Fail(const absl::Status& status) {
  printf("%s\n", status.ToString().c_str());
  return 1;
}

void Hold(const std::string& answer) {
  printf("%s\n", answer.c_str());
  fflush(stdout);
  for (;;) pause();
}

int Echo(EventChannels& events, uint32_t port) {
  printf("%u\n", port);
  fflush(stdout);
  for (;;) {
    pollfd entry{.fd = events.fd(), .events = POLLIN, .revents = 0};
    poll(&entry, 1, -1);
    for (;;) {
      auto pending = events.NextPending();
      if (!pending.ok() || !pending->has_value()) break;
      if (!events.Notify(**pending).ok() || !events.Unmask(**pending).ok()) return 1;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  auto platform = vmsg::grants::OpenPlatform(argv[1]);
  if (!platform.ok()) return Fail(platform.status());
  const std::string what = argv[2];
  const auto domain = static_cast<vmsg::grants::DomainId>(atoi(argv[3]));
  std::vector<uint32_t> numbers;
  for (int i = 4; i < argc; ++i) numbers.push_back(strtoul(argv[i], nullptr, 10));
  if (what == "map") {
    auto mapper = (*platform)->OpenGrantMapper();
    if (!mapper.ok()) return Fail(mapper.status());
    auto mapping = (*mapper)->Map(domain, numbers, Access::kReadWrite);
    if (!mapping.ok()) return Fail(mapping.status());
    Hold("1");
  }
  if (what == "share" && numbers.size() == 1) {
    auto sharer = (*platform)->OpenGrantSharer();
    if (!sharer.ok()) return Fail(sharer.status());
    auto pages = (*sharer)->Share(domain, numbers[0], Access::kReadWrite);
    if (!pages.ok()) return Fail(pages.status());
    memset(pages->bytes().data(), 0x5a, pages->bytes().size());
    std::string refs;
    for (const uint32_t ref : pages->refs()) refs += std::to_string(ref) + " ";
    Hold(refs);
  }
  auto events = (*platform)->OpenEventChannels();
  if (!events.ok()) return Fail(events.status());
  auto port = what == "allocate" ? (*events)->AllocateUnbound(domain)
                                 : (*events)->BindInterdomain(domain, numbers.at(0));
  if (!port.ok()) return Fail(port.status());
  if (what == "echo") return Echo(**events, *port);
  Hold(std::to_string(*port));
}
