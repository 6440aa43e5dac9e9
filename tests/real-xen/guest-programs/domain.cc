// SPDX-License-Identifier: Apache-2.0
// What scenarios ask Xen of a domain, each in one process: xl and a shell take seconds in QEMU.
//
//   domain mappings DOMID            how often its pages are mapped, by any domain
//   domain await-end DOMID SECONDS   until Xen does not know it any more
//   domain first NAME SECONDS        waits for a new domain of that name until it has run and has
//                                    its bus 0 in xenstore; which came first: "nodes" or "guest"
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

std::string Value(xs_handle* store, const std::string& path) {
  unsigned size = 0;
  void* const value = xs_read(store, XBT_NULL, path.c_str(), &size);
  std::string text = value == nullptr ? "" : std::string(static_cast<const char*>(value), size);
  std::free(value);
  return text;
}

// The newest domain of that name that was introduced.
uint32_t NewestOf(xs_handle* store, const std::string& name) {
  uint32_t newest = 0;
  unsigned count = 0;
  char** const domains = xs_directory(store, XBT_NULL, "/local/domain", &count);
  for (unsigned i = 0; domains != nullptr && i < count; ++i) {
    const uint32_t domain = std::strtoul(domains[i], nullptr, 10);
    if (domain > newest && xs_is_domain_introduced(store, domain) &&
        Value(store, std::string("/local/domain/") + domains[i] + "/name") == name) {
      newest = domain;
    }
  }
  std::free(domains);
  return newest;
}

int First(xc_interface* xen, const std::string& name, int seconds) {
  xs_handle* const store = xs_open(0);
  if (store == nullptr) Fail("xenstore");
  const Clock::time_point deadline = Clock::now() + std::chrono::seconds(seconds);
  const uint32_t known = NewestOf(store, name);
  std::cout << "waiting" << std::endl;
  std::string first;
  for (uint32_t domain = known; Clock::now() < deadline; ::poll(nullptr, 0, 1)) {
    if (domain == known) domain = NewestOf(store, name);
    if (domain == known) continue;
    xc_dominfo_t info;
    if (xc_domain_getinfo(xen, domain, 1, &info) != 1 || info.domid != domain) break;
    const bool runs = info.cpu_time > 0;  // asked first: in doubt it is the guest
    const bool nodes =
        !Value(store, "/local/domain/" + std::to_string(domain) + "/device/virtio-msg/0/backend")
             .empty();
    if (first.empty() && (runs || nodes)) first = runs ? "guest" : "nodes";
    if (runs && nodes) {
      std::cout << first << "\n";
      xs_close(store);
      return 0;
    }
  }
  std::cerr << "no new domain " << name << " has run and has a bus in " << seconds << " s\n";
  return 1;
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
  if (words.size() == 3 && words[0] == "first") {
    return First(xen, words[1], std::atoi(words[2].c_str()));
  }
  std::cerr << "domain mappings DOMID | await-end DOMID SECONDS | first NAME SECONDS\n";
  return 1;
}
