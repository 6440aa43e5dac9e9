// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "text/foreign_text.h"
#include "tools/vmsgctl/commands.h"
#include "tools/vmsgctl/facts/inventory.h"
#include "tools/vmsgctl/waiting.h"
#include "xenstore/bus_offer.h"
#include "xenstore/toolstack/attachment.h"
#include "xenstore/toolstack/bus_creation.h"
#include "xenstore/toolstack/device_entry.h"
#include "xenstore/toolstack/domain_names.h"
#include "xenstore/toolstack/xl_config.h"

namespace vmsg::ctl {
namespace {

using xenstore::BusAddress;
using xenstore::Store;

using xenstore::AttachItem;
using xenstore::AttachPlan;

absl::StatusOr<std::vector<AttachItem>> ReadEntries(const Arguments& arguments,
                                                    std::optional<std::string>& domain,
                                                    std::optional<std::string>& backend,
                                                    Console console) {
  std::vector<AttachItem> items;
  if (!arguments.config.has_value()) {
    for (const std::string& text : arguments.entries) {
      absl::StatusOr<xenstore::DeviceEntry> entry = xenstore::ParseDeviceEntry(text);
      const std::string label = absl::StrCat("entry ", Quoted(text));
      if (!entry.ok()) {
        return absl::InvalidArgumentError(absl::StrCat(label, ": ", entry.status().message()));
      }
      items.push_back({label, *std::move(entry), 0});
    }
    return items;
  }
  absl::StatusOr<xenstore::XlConfig> config = xenstore::ReadXlConfig(*arguments.config);
  if (!config.ok()) return config.status();
  for (const std::string& warning : config->warnings) {
    console.Complain(absl::StrCat("warning: ", warning));
  }
  if (!domain.has_value()) domain = config->name;
  if (!backend.has_value()) backend = config->backend;
  items = xenstore::ItemsOfConfig(*arguments.config, *config);
  if (items.empty()) {
    return absl::NotFoundError(absl::StrCat(
        *arguments.config, ": there is no virtio_msg = [ ... ] in it: nothing to attach"));
  }
  return items;
}

// Another domain has other paths.
bool IsElsewhere(Store& store, uint16_t backend) {
  absl::StatusOr<uint16_t> self = xenstore::OwnDomain(store);
  return !self.ok() || *self != backend;
}

absl::StatusOr<AttachPlan> MakePlan(const Arguments& arguments, Store& store, Console console,
                                    Check check) {
  std::optional<std::string> domain = arguments.domain;
  std::optional<std::string> backend = arguments.backend;
  absl::StatusOr<std::vector<AttachItem>> items = ReadEntries(arguments, domain, backend, console);
  if (!items.ok()) return items.status();
  if (!domain.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        *arguments.config, ": there is no name in it; give the domain on the command line"));
  }
  absl::StatusOr<uint16_t> frontend = xenstore::FindDomain(store, *domain);
  if (!frontend.ok()) return frontend.status();
  absl::StatusOr<uint16_t> at =
      backend.has_value() ? xenstore::FindDomain(store, *backend) : xenstore::OwnDomain(store);
  if (!at.ok()) return at.status();
  // A config is attached as a whole or not, as far as that can be seen from here.
  if (arguments.config.has_value() && check != nullptr && !IsElsewhere(store, *at)) {
    if (absl::Status checked = check(*items); !checked.ok()) return checked;
  }
  return xenstore::PlanAttachment(*frontend, *at, *std::move(items));
}

// What vmsgd answered, or that it did not.
absl::Status AwaitAnswer(Store& store, const BusAddress& bus, bool created_bus,
                         const AttachItem& item, absl::Duration timeout, const Servers& servers) {
  DeviceFacts device;
  std::string bus_error;
  absl::StatusOr<bool> answered =
      WaitFor(store, bus.BackendPath(), timeout, [&]() -> absl::StatusOr<bool> {
        // First, so that an answer is not missed that came before it.
        if (created_bus) {
          absl::StatusOr<std::string> error =
              store.Read(absl::StrCat(bus.BackendPath(), "/", xenstore::kHotplugErrorNode));
          if (error.ok()) bus_error = *std::move(error);
        }
        absl::StatusOr<DeviceFacts> now = ReadDevice(store, bus, item.number);
        if (absl::IsNotFound(now.status())) {
          return absl::AbortedError("was detached by somebody else before vmsgd answered");
        }
        if (!now.ok()) return now.status();
        device = *std::move(now);
        if (device.id != item.id) {
          return absl::AbortedError(absl::StrCat("was detached by somebody else, and device ",
                                                 item.number, " is another one by now"));
        }
        return device.status == xenstore::kStatusConnected ||
               device.status == xenstore::kStatusError || !bus_error.empty();
      });
  if (!answered.ok()) return answered.status();
  if (!*answered) {
    return absl::DeadlineExceededError(absl::StrCat("no answer within ",
                                                    absl::FormatDuration(timeout), ": ",
                                                    servers.WhyNoAnswer(bus.backend)));
  }
  if (device.status == xenstore::kStatusConnected) return absl::OkStatus();
  // The whole bus is not served: a quota, for one, under which no device's answer fits either.
  if (device.status != xenstore::kStatusError) return absl::ResourceExhaustedError(bus_error);
  return absl::InvalidArgumentError(device.error.empty() ? "refused by vmsgd without a reason"
                                                         : device.error);
}

// A bus that this call made and that holds nothing is not left behind.
void RemoveEmptyBus(Store& store, const BusAddress& bus, bool vmsgd_answers,
                    absl::Duration timeout) {
  // Others may have attached something to it meanwhile.
  if (!xenstore::RequestEmptyBusRemoval(store, bus).ok()) return;
  if (vmsgd_answers) {
    WaitFor(store, bus.BackendPath(), timeout, [&]() -> absl::StatusOr<bool> {
      absl::StatusOr<std::string> state =
          store.Read(absl::StrCat(bus.BackendPath(), "/", xenstore::kState));
      return absl::IsNotFound(state.status());
    }).IgnoreError();
  }
  xenstore::RemoveLeavingBus(store, bus).IgnoreError();
}

// Waits for the answers to one bus's entries; exit status.
int AwaitBus(Store& store, const std::string& domain_label, const BusAddress& bus,
             const std::vector<AttachItem>& items, bool created_bus, absl::Duration timeout,
             const Servers& servers, Console console) {
  int exit = kExitDone;
  bool vmsgd_answers = false;
  for (const AttachItem& item : items) {
    // When there was no answer to the first, the others have had their time as well.
    const bool silent = exit != kExitDone && !vmsgd_answers;
    absl::Status answer = AwaitAnswer(store, bus, created_bus, item,
                                      silent ? absl::ZeroDuration() : timeout, servers);
    // One that refuses the bus may not follow it, and not remove it.
    vmsgd_answers =
        vmsgd_answers || !(absl::IsDeadlineExceeded(answer) || absl::IsResourceExhausted(answer) ||
                           absl::IsAborted(answer));
    if (answer.ok()) {
      console.Say(absl::StrCat(domain_label, ": bus ", bus.id, " device ", item.number, " (",
                               item.entry.type,
                               item.attached ? ") is attached already" : ") attached"));
      continue;
    }
    console.Complain(absl::StrCat(item.label, ": ", answer.message()));
    // What was there before stays, and can be tried once more.
    if (!item.Known()) xenstore::RemoveEntry(store, {bus, item.number, item.id}).IgnoreError();
    exit = kExitRefused;
  }
  if (exit != kExitDone && created_bus) {
    RemoveEmptyBus(store, bus, vmsgd_answers, timeout);
  }
  return exit;
}

// From anywhere the same file. Empty: the entries are from the command line.
std::string ConfigPath(const Arguments& arguments) {
  if (!arguments.config.has_value()) return "";
  std::error_code failed;
  const std::filesystem::path path = std::filesystem::absolute(*arguments.config, failed);
  return failed ? *arguments.config : path.string();
}

}  // namespace

int Attach(const Arguments& arguments, Store& store, Console console, const AskLiveness& ask,
           Check check) {
  absl::StatusOr<uint16_t> self = xenstore::OwnDomain(store);
  if (!self.ok()) {
    console.Complain(self.status().message());
    return kExitRefused;
  }
  const Servers servers(ask, *self);
  absl::StatusOr<AttachPlan> plan = MakePlan(arguments, store, console, check);
  absl::StatusOr<absl::btree_map<uint32_t, xenstore::DeviceCreation>> created =
      absl::CancelledError();
  if (!plan.ok()) {
    created = plan.status();
  } else {
    created = xenstore::WriteAttachment(store, *plan, ConfigPath(arguments));
  }
  if (!created.ok()) {
    console.Complain(created.status().message());
    return kExitRefused;
  }
  const std::string domain_label = xenstore::DomainLabel(store, plan->frontend);
  int exit = kExitDone;
  for (const auto& [id, items] : plan->buses) {
    exit =
        std::max(exit, AwaitBus(store, domain_label, plan->bus(id), items,
                                (*created)[id].created_bus, arguments.timeout, servers, console));
  }
  return exit;
}

}  // namespace vmsg::ctl
