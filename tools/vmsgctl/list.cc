// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "text/foreign_text.h"
#include "tools/vmsgctl/commands.h"
#include "tools/vmsgctl/facts/inventory.h"
#include "xenstore/bus_offer.h"
#include "xenstore/toolstack/domain_names.h"

namespace vmsg::ctl {
namespace {

using xenstore::XenbusState;
using Row = std::vector<std::string>;

std::string StateWord(const std::optional<XenbusState>& state) {
  return state.has_value() ? std::string(xenstore::StateName(*state)) : "gone";
}

// In a table that is read at a glance; reasons are below it.
std::string StatusWords(const DeviceFacts& device) {
  if (device.io_errors.empty()) return device.status;
  return absl::StrCat(device.status, ", I/O errors: ", device.io_errors);
}

std::string DomainWords(const std::string& name, uint16_t domain) {
  return name.empty() ? absl::StrCat(domain) : absl::StrCat(name, " (", domain, ")");
}

// What a reader of the states should know.
void WarnOfServers(const std::vector<BusFacts>& buses, const Servers& servers, uint16_t self,
                   const Console& console) {
  absl::btree_set<uint16_t> backends;
  for (const BusFacts& bus : buses) backends.insert(bus.address.backend);
  for (const uint16_t backend : backends) {
    const Liveness server = servers.Of(backend);
    if (backend != self) {
      console.Complain(absl::StrCat("whether vmsgd runs in domain ", backend,
                                    " cannot be asked from here; its states may be old"));
    } else if (server.answer == Liveness::Answer::kNone) {
      console.Complain("no vmsgd is running: the states are what the last one left");
    } else if (server.answer == Liveness::Answer::kEnding) {
      console.Complain(absl::StrCat(servers.WhyNoAnswer(backend), ": the states are what it left"));
    } else if (server.answer == Liveness::Answer::kCannotTell) {
      console.Complain(absl::StrCat("whether a vmsgd is running cannot be told: ", server.why));
    }
  }
}

// Reasons go to `notes`, a line each.
std::vector<Row> TableRows(const std::vector<BusFacts>& buses, const Servers& servers,
                           std::vector<std::string>& notes) {
  std::vector<Row> rows;
  for (const BusFacts& bus : buses) {
    const xenstore::BusAddress& address = bus.address;
    const std::string domain = DomainWords(bus.domain_name, address.frontend);
    const std::string id = address.backend == 0
                               ? absl::StrCat(address.id)
                               : absl::StrCat(address.id, " at domain ", address.backend);
    const std::string state = absl::StrCat(StateWord(bus.frontend), " / ", StateWord(bus.backend),
                                           bus.online ? "" : ", removing");
    const std::string name = absl::StrCat(domain, " bus ", id);
    if (bus.devices.empty() || !bus.error.empty()) {
      rows.push_back({domain, id, state, "-", "-", bus.error.empty() ? "no devices" : "error", ""});
    }
    if (!bus.error.empty()) notes.push_back(absl::StrCat(name, ": ", bus.error));
    for (const DeviceFacts& device : bus.devices) {
      rows.push_back(
          {domain, id, state, absl::StrCat(device.number), device.type,
           absl::StrCat(StatusWords(device), servers.MayLive(address.backend) ? "" : " (no vmsgd)"),
           absl::StrJoin(device.parameters, ",", absl::PairFormatter("="))});
      const std::string which = absl::StrCat(name, " device ", device.number, ": ");
      if (device.status == xenstore::kStatusError && !device.error.empty()) {
        notes.push_back(absl::StrCat(which, device.error));
      }
      if (!device.io_errors.empty()) {
        notes.push_back(absl::StrCat(which, "last I/O error: ", device.io_error));
      }
    }
  }
  return rows;
}

// What there is of a config now, whatever became of it first: entries that were refused or detached
// since, or that nobody serves.
std::string ConfigStatus(const ConfigFacts& facts, const std::vector<BusFacts>& buses,
                         const Servers& servers) {
  if (!facts.mark.error.empty()) return "error";
  size_t all = 0, connected = 0, refused = 0;
  bool served = true;
  for (const BusFacts& bus : buses) {
    if (bus.address.frontend != facts.domain) continue;
    for (const DeviceFacts& device : bus.devices) {
      if (device.from_config.empty()) continue;
      ++all;
      connected += device.status == xenstore::kStatusConnected ? 1 : 0;
      refused += device.status == xenstore::kStatusError ? 1 : 0;
      served = served && servers.MayLive(bus.address.backend);
    }
  }
  if (all == 0) return "nothing attached";
  if (!served) return "no vmsgd";
  if (connected == all) return "attached";
  return absl::StrCat(connected, " of ", all, " attached",
                      refused > 0 ? absl::StrCat(", ", refused, " refused") : "");
}

std::vector<Row> ConfigRows(const std::vector<ConfigFacts>& configs,
                            const std::vector<BusFacts>& buses, const Servers& servers,
                            std::vector<std::string>& notes) {
  std::vector<Row> rows;
  rows.reserve(configs.size());
  for (const ConfigFacts& facts : configs) {
    const std::string domain = DomainWords(facts.domain_name, facts.domain);
    rows.push_back({domain, facts.mark.config.empty() ? "-" : facts.mark.config,
                    ConfigStatus(facts, buses, servers)});
    if (!facts.mark.error.empty()) notes.push_back(absl::StrCat(domain, ": ", facts.mark.error));
  }
  return rows;
}

void AppendNotes(const std::vector<std::string>& notes, std::string& out) {
  if (!notes.empty()) out.append("\n");
  for (const std::string& note : notes) out.append(CleanText(note)).append("\n");
}

// The first row is the heading.
void AppendTable(std::vector<Row> rows, std::string& out) {
  std::vector<size_t> widths(rows[0].size());
  for (Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = CleanText(row[i]);
      widths[i] = std::max(widths[i], ShownCharacters(row[i]));
    }
  }
  for (const Row& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      out.append(row[i]).append(widths[i] - ShownCharacters(row[i]) + 2, ' ');
    }
    out.append(row.back()).append("\n");
  }
}

std::string Tables(const std::vector<BusFacts>& buses, const std::vector<ConfigFacts>& configs,
                   const Servers& servers) {
  std::string out;
  std::vector<Row> rows = {
      {"DOMAIN", "BUS", "STATE (FRONT / BACK)", "DEV", "TYPE", "STATUS", "PARAMETERS"}};
  std::vector<std::string> notes;
  const std::vector<Row> body = TableRows(buses, servers, notes);
  rows.insert(rows.end(), body.begin(), body.end());
  AppendTable(std::move(rows), out);
  AppendNotes(notes, out);
  if (configs.empty()) return out;
  notes.clear();
  rows = {{"DOMAIN", "CONFIG", "STATUS"}};
  const std::vector<Row> of_configs = ConfigRows(configs, buses, servers, notes);
  rows.insert(rows.end(), of_configs.begin(), of_configs.end());
  out.append("\n");
  AppendTable(std::move(rows), out);
  AppendNotes(notes, out);
  return out;
}

void AddConfig(nlohmann::ordered_json& item, const ConfigFacts& facts, const std::string& status) {
  item["config"] = facts.mark.config;
  item["config_status"] = status;
  if (!facts.mark.error.empty()) item["config_error"] = facts.mark.error;
}

// A domain of which there is nothing but what became of its config.
nlohmann::ordered_json Json(const ConfigFacts& facts, const std::string& status) {
  nlohmann::ordered_json item = {{"domain", facts.domain}, {"name", facts.domain_name}};
  AddConfig(item, facts, status);
  item["devices"] = nlohmann::ordered_json::array();
  return item;
}

nlohmann::ordered_json Json(const BusFacts& bus, const Servers& servers) {
  nlohmann::ordered_json devices = nlohmann::ordered_json::array();
  for (const DeviceFacts& device : bus.devices) {
    nlohmann::ordered_json parameters = nlohmann::ordered_json::object();
    for (const auto& [key, value] : device.parameters) parameters[key] = value;
    nlohmann::ordered_json item = {
        {"number", device.number}, {"type", device.type}, {"status", device.status}};
    if (!device.error.empty()) item["error"] = device.error;
    if (!device.io_errors.empty()) {
      uint64_t count = 0;
      (void)absl::SimpleAtoi(device.io_errors, &count);
      item["io_errors"] = count;
      item["io_error"] = device.io_error;
    }
    item["parameters"] = std::move(parameters);
    devices.push_back(std::move(item));
  }
  nlohmann::ordered_json item = {{"domain", bus.address.frontend},
                                 {"name", bus.domain_name},
                                 {"backend", bus.address.backend},
                                 {"bus", bus.address.id},
                                 {"frontend_state", StateWord(bus.frontend)},
                                 {"backend_state", StateWord(bus.backend)},
                                 {"online", bus.online},
                                 {"vmsgd", Servers::Word(servers.Of(bus.address.backend).answer)}};
  if (!bus.error.empty()) item["error"] = bus.error;
  item["devices"] = std::move(devices);
  return item;
}

// The one that the command line names; one that is gone may have left something. nullopt: all.
absl::StatusOr<std::optional<uint16_t>> ChosenDomain(const Arguments& arguments,
                                                     xenstore::Store& store) {
  if (!arguments.domain.has_value()) return std::optional<uint16_t>();
  absl::StatusOr<uint16_t> domain =
      xenstore::FindDomain(store, *arguments.domain, /*may_be_gone=*/true);
  if (!domain.ok()) return domain.status();
  return std::optional<uint16_t>(*domain);
}

}  // namespace

int List(const Arguments& arguments, xenstore::Store& store, Console console,
         const AskLiveness& ask) {
  absl::StatusOr<std::optional<uint16_t>> chosen = ChosenDomain(arguments, store);
  if (!chosen.ok()) {
    console.Complain(chosen.status().message());
    return kExitRefused;
  }
  const auto wanted = [&](uint16_t domain) { return !chosen->has_value() || **chosen == domain; };
  std::vector<BusFacts> buses;
  absl::StatusOr<std::vector<xenstore::BusAddress>> addresses = FindBuses(store);
  if (!addresses.ok()) {
    console.Complain(addresses.status().message());
    return kExitRefused;
  }
  for (const xenstore::BusAddress& address : *addresses) {
    if (!wanted(address.frontend)) continue;
    absl::StatusOr<BusFacts> bus = ReadBus(store, address);
    if (!bus.ok()) {
      console.Complain(bus.status().message());
      return kExitRefused;
    }
    // Gone since it was found.
    if (!bus->backend.has_value()) continue;
    buses.push_back(*std::move(bus));
  }
  absl::StatusOr<std::vector<ConfigFacts>> configs = FindConfigs(store);
  if (!configs.ok()) {
    console.Complain(configs.status().message());
    return kExitRefused;
  }
  configs->erase(std::remove_if(configs->begin(), configs->end(),
                                [&](const ConfigFacts& facts) { return !wanted(facts.domain); }),
                 configs->end());
  absl::StatusOr<uint16_t> self = xenstore::OwnDomain(store);
  if (!self.ok()) {
    console.Complain(self.status().message());
    return kExitRefused;
  }
  // Once, so that no line says otherwise than another.
  const Servers servers([now = ask()] { return now; }, *self);
  WarnOfServers(buses, servers, *self, console);
  if (!arguments.json) {
    console.Print(Tables(buses, *configs, servers));
    return kExitDone;
  }
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const BusFacts& bus : buses) {
    all.push_back(Json(bus, servers));
    for (const ConfigFacts& facts : *configs) {
      if (facts.domain != bus.address.frontend) continue;
      AddConfig(all.back(), facts, ConfigStatus(facts, buses, servers));
    }
  }
  for (const ConfigFacts& facts : *configs) {
    const bool shown = std::any_of(buses.begin(), buses.end(), [&](const BusFacts& bus) {
      return bus.address.frontend == facts.domain;
    });
    if (!shown) all.push_back(Json(facts, ConfigStatus(facts, buses, servers)));
  }
  // Values are bytes and may be no UTF-8; in ASCII there is nothing that a terminal would obey.
  console.Print(absl::StrCat(
      all.dump(2, ' ', /*ensure_ascii=*/true, nlohmann::ordered_json::error_handler_t::replace),
      "\n"));
  return kExitDone;
}

}  // namespace vmsg::ctl
