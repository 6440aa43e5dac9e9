// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/toolstack.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace vmsg::emu {
namespace {

using store::NodePermission;

std::string DomainPath(const Domain& domain) { return absl::StrCat("/local/domain/", domain.id); }
// The toolstack's own notes.
std::string LibxlPath(const Domain& domain) { return absl::StrCat("/libxl/", domain.id); }

// Made of the domid, so that a run can be repeated.
std::string VmPath(const Domain& domain) {
  return absl::StrFormat("/vm/00000000-0000-4000-8000-%012x", domain.id);
}

class NodeWriter {
 public:
  explicit NodeWriter(store::StoreServer& store) : store_(store) {}

  void Write(absl::string_view path, absl::string_view value,
             const std::vector<NodePermission>& permissions) {
    if (status_.ok()) status_ = store_.Write(path, value);
    if (status_.ok()) status_ = store_.SetPermissions(path, permissions);
  }
  const absl::Status& status() const { return status_; }

 private:
  store::StoreServer& store_;
  absl::Status status_;
};

}  // namespace

absl::Status DescribeDom0(store::StoreServer& store) {
  NodeWriter nodes(store);
  const std::vector<NodePermission> dom0_only = {{'n', 0}};
  nodes.Write("/local/domain/0/domid", "0", dom0_only);
  nodes.Write("/local/domain/0/name", "Domain-0", dom0_only);
  return nodes.status();
}

absl::Status DescribeDomain(store::StoreServer& store, const Domain& domain) {
  const std::vector<NodePermission> guest_reads = {{'n', 0}, {'r', domain.id}};
  const std::vector<NodePermission> guest_owns = {{'n', domain.id}};
  const std::string path = DomainPath(domain);
  const std::string vm = VmPath(domain);
  const std::string memory_kib =
      absl::StrCat(uint64_t{domain.memory->pages()} * (grants::kPageSize / 1024));
  NodeWriter nodes(store);
  nodes.Write(LibxlPath(domain), "", {{'n', 0}});
  nodes.Write(path, "", guest_reads);
  nodes.Write(vm, "", guest_reads);
  nodes.Write(absl::StrCat(vm, "/name"), domain.name, guest_reads);
  nodes.Write(absl::StrCat(vm, "/uuid"), vm.substr(4), guest_reads);
  nodes.Write(absl::StrCat(path, "/vm"), vm, guest_reads);
  nodes.Write(absl::StrCat(path, "/name"), domain.name, guest_reads);
  nodes.Write(absl::StrCat(path, "/domid"), absl::StrCat(domain.id), guest_reads);
  for (const char* directory : {"cpu", "memory", "device", "control"}) {
    nodes.Write(absl::StrCat(path, "/", directory), "", guest_reads);
  }
  nodes.Write(absl::StrCat(path, "/memory/static-max"), memory_kib, guest_reads);
  nodes.Write(absl::StrCat(path, "/memory/target"), memory_kib, guest_reads);
  for (const char* node : {"control/shutdown", "control/sysrq", "device/suspend/event-channel",
                           "data", "drivers", "feature", "attr", "error"}) {
    nodes.Write(absl::StrCat(path, "/", node), "", guest_owns);
  }
  if (!nodes.status().ok()) return nodes.status();
  return store.IntroduceDomain(domain.id);
}

void ForgetDomain(store::StoreServer& store, const Domain& domain) {
  store.Remove(DomainPath(domain)).IgnoreError();
  store.Remove(VmPath(domain)).IgnoreError();
  store.Remove(LibxlPath(domain)).IgnoreError();
}

}  // namespace vmsg::emu
