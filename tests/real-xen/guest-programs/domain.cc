// SPDX-License-Identifier: Apache-2.0
// What scenarios ask Xen of a domain, each in one process: xl and a shell take seconds in QEMU.
//
//   domain mappings DOMID            how often its pages are mapped, by any domain
//   domain await-end DOMID SECONDS   until Xen does not know it any more
#include <poll.h>

extern "C" {  // the headers do not say it
#include <xenctrl.h>
#include <xenstore.h>
}

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr unsigned kReservedRefs = 8;  // xen/include/public/grant_table.h

[[noreturn]] void Fail(const std::string& what) {
  std::perror(("domain: " + what).c_str());
  std::exit(1);
}

// What is in Xen's console ring; it is empty afterwards.
std::string TakeConsole(xc_interface* xen) {
  std::string text;
  for (;;) {
    char part[1 << 16];
    uint32_t size = sizeof part, index = 0;
    if (xc_readconsolering(xen, part, &size, /*clear=*/1, /*incremental=*/0, &index) != 0) {
      Fail("Xen's console");
    }
    text.append(part, size);
    if (size < sizeof part) return text;
  }
}

// The pins in Xen's dump of the domain's grant table (readers and writers are counted in two
// bytes), but for the reserved references (console and xenstore).
long Mappings(xc_interface* xen, uint32_t domain) {
  TakeConsole(xen);
  if (xc_send_debug_keys(xen, "g") != 0) Fail("Xen's debug key");
  std::istringstream lines(TakeConsole(xen));
  long count = 0;
  bool owned = false;
  for (std::string line; std::getline(lines, line);) {
    unsigned owner, ref, holder, pin;
    unsigned long frame;
    if (const size_t table = line.find("grant-table for remote d"); table != std::string::npos) {
      owned = std::sscanf(line.c_str() + table, "grant-table for remote d%u", &owner) == 1 &&
              owner == domain;
    }
    const size_t entry = line.find("[0x");
    if (!owned || entry == std::string::npos ||
        std::sscanf(line.c_str() + entry, "[%x] %u %lx %x", &ref, &holder, &frame, &pin) != 4) {
      continue;
    }
    if (ref >= kReservedRefs) count += (pin & 255) + (pin >> 8 & 255);
  }
  return count;
}

bool Exists(xc_interface* xen, uint32_t domain) {
  xc_dominfo_t info;  // of this domain, or of the next one that exists
  const int found = xc_domain_getinfo(xen, domain, 1, &info);
  if (found < 0 && errno != ESRCH) Fail("Xen's list of domains");
  return found == 1 && info.domid == domain;
}

int AwaitEnd(xc_interface* xen, uint32_t domain, int seconds) {
  xs_handle* const store = xs_open(0);
  if (store == nullptr || !xs_watch(store, "@releaseDomain", "")) Fail("xenstore");
  const Clock::time_point deadline = Clock::now() + std::chrono::seconds(seconds);
  while (Exists(xen, domain)) {
    if (Clock::now() >= deadline) {
      std::cerr << "domain " << domain << " did not end in " << seconds << " s\n";
      return 1;
    }
    // Or half a second: xenstored tells when it dies, which may be before its last page is free.
    pollfd ready = {.fd = xs_fileno(store), .events = POLLIN, .revents = 0};
    ::poll(&ready, 1, 500);
    while (char** event = xs_check_watch(store)) std::free(event);
  }
  xs_close(store);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  xc_interface* const xen = xc_interface_open(nullptr, nullptr, 0);
  if (xen == nullptr) Fail("libxenctrl");
  if (words.size() == 2 && words[0] == "mappings") {
    std::cout << Mappings(xen, std::strtoul(words[1].c_str(), nullptr, 10)) << "\n";
    return 0;
  }
  if (words.size() == 3 && words[0] == "await-end") {
    return AwaitEnd(xen, std::strtoul(words[1].c_str(), nullptr, 10), std::atoi(words[2].c_str()));
  }
  std::cerr << "domain mappings DOMID | await-end DOMID SECONDS\n";
  return 1;
}
