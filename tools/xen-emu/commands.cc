// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/commands.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tools/xen-emu/toolstack.h"

namespace vmsg::emu {
namespace {

const char* StateName(Domain::State state) {
  switch (state) {
    case Domain::State::kRunning:
      return "running";
    case Domain::State::kShutDown:
      return "shutdown";
    case Domain::State::kDying:
      return "zombie";
  }
  return "?";
}

const char* KindName(Faults::Kind kind) {
  switch (kind) {
    case Faults::Kind::kMapFail:
      return "map-fail";
    case Faults::Kind::kShareFail:
      return "share-fail";
    case Faults::Kind::kBindFail:
      return "bind-fail";
  }
  return "?";
}

}  // namespace

absl::StatusOr<std::string> Commands::Run(absl::string_view command) {
  const Arguments arguments = absl::StrSplit(command, kArgumentSeparator);
  const absl::string_view name = arguments[0];
  if (name == "create" && arguments.size() <= 3) return Create(arguments);
  if (name == "list" && arguments.size() == 1) return List();
  if (name == "debug" && arguments.size() == 1) return Debug();
  if (name == "fault" && arguments.size() >= 2) return Fault(arguments);
  if ((name == "destroy" || name == "shutdown") && arguments.size() == 2) {
    const absl::Status status = name == "destroy" ? Destroy(arguments[1]) : ShutDown(arguments[1]);
    if (!status.ok()) return status;
    return std::string();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("not a command, or with a wrong number of arguments: ", name));
}

absl::StatusOr<std::string> Commands::Create(const Arguments& arguments) {
  uint32_t memory = DomainList::kDefaultMemoryMiB;
  if (arguments.size() > 2 && !absl::SimpleAtoi(arguments[2], &memory)) {
    return absl::InvalidArgumentError(absl::StrCat("not a number of MiB: ", arguments[2]));
  }
  auto domain = domains_.Add(arguments.size() > 1 ? arguments[1] : "", memory);
  if (!domain.ok()) return domain.status();
  absl::Status status = sockets_.open(*domain);
  if (status.ok()) status = DescribeDomain(store_, **domain);
  if (!status.ok()) {
    ForgetDomain(store_, **domain);
    sockets_.close(*domain);
    domains_.Kill(*domain);
    return status;
  }
  return absl::StrCat((*domain)->id);
}

absl::Status Commands::Destroy(absl::string_view text) {
  auto domain = domains_.FindByText(text);
  if (!domain.ok()) return domain.status();
  if ((*domain)->id == 0) return absl::InvalidArgumentError("Dom0 cannot be destroyed");
  // libxl's order: the nodes go while the domain still exists, then the domain.
  ForgetDomain(store_, **domain);
  sockets_.close(*domain);
  domains_.Kill(*domain);
  return store_.ReleaseDomain((*domain)->id);
}

absl::Status Commands::ShutDown(absl::string_view text) {
  auto domain = domains_.FindByText(text);
  if (!domain.ok()) return domain.status();
  if ((*domain)->id == 0) return absl::InvalidArgumentError("Dom0 cannot be shut down");
  if ((*domain)->state != Domain::State::kRunning) {
    return absl::FailedPreconditionError(absl::StrCat("domain ", text, " is shut down already"));
  }
  (*domain)->state = Domain::State::kShutDown;
  return store_.ShutDownDomain((*domain)->id);
}

std::string Commands::List() {
  std::string text;
  for (const auto& domain : domains_.All()) {
    absl::StrAppend(&text, domain->id, " ",
                    domain->state == Domain::State::kDying ? "(null)" : domain->name, " ",
                    StateName(domain->state), " ",
                    domain->memory->pages() / DomainList::kPagesPerMiB, "\n");
  }
  return text;
}

std::string Commands::Debug() {
  std::string text;
  for (const auto& domain : domains_.All()) {
    const EventPorts::Counts ports = hypervisor_.ports().CountsOf(domain->id);
    absl::StrAppend(&text, "domain=", domain->id, " state=", StateName(domain->state),
                    " grants=", domain->grants.active(), " deferred=", domain->grants.deferred(),
                    " pinned=", domain->grants.pins(), " maps=", domain->mapped_pages);
    absl::StrAppend(&text, " used-pages=", domain->memory->used_pages(), " ports=", ports.ports,
                    " bound=", ports.bound, "\n");
  }
  const store::StoreServer::Counts store = store_.counts();
  absl::StrAppend(&text, "store nodes=", store.nodes, " watches=", store.watches,
                  " transactions=", store.transactions, " connections=", store.connections, "\n",
                  sockets_.describe());
  return text;
}

absl::StatusOr<std::string> Commands::Fault(const Arguments& arguments) {
  Faults& faults = hypervisor_.faults();
  const absl::string_view name = arguments[1];
  std::vector<uint32_t> numbers;
  for (size_t i = 2; i < arguments.size(); ++i) {
    numbers.emplace_back();
    if (!absl::SimpleAtoi(arguments[i], &numbers.back())) {
      return absl::InvalidArgumentError(
          absl::StrCat("fault ", name, ": not a number: ", arguments[i]));
    }
  }
  const auto domain = [&] { return static_cast<grants::DomainId>(numbers[0]); };
  const auto times = [&](size_t at) { return numbers.size() > at ? numbers[at] : 1; };
  const size_t count = numbers.size();
  if (count > 0 && name != "store-delay" && numbers[0] >= grants::kFirstReservedDomain) {
    return absl::InvalidArgumentError(absl::StrCat("fault ", name, ": no domid: ", numbers[0]));
  }
  if (name == "list" && count == 0) return ListFaults();
  if (name == "clear" && count == 0) {
    faults = Faults();
    store_.LoseEvents(0, 0);
  } else if (name == "map-fail" && (count == 2 || count == 3) && times(2) > 0) {
    faults.rules.push_back({Faults::Kind::kMapFail, domain(), numbers[1], times(2)});
  } else if (name == "share-fail" && (count == 1 || count == 2) && times(1) > 0) {
    faults.rules.push_back({Faults::Kind::kShareFail, domain(), 0, times(1)});
  } else if (name == "bind-fail" && (count == 1 || count == 2) && times(1) > 0) {
    faults.rules.push_back({Faults::Kind::kBindFail, domain(), 0, times(1)});
  } else if (name == "lose-events" && count == 3) {
    const absl::Status status = hypervisor_.LoseEvents(domain(), numbers[1], numbers[2]);
    if (!status.ok()) return status;
  } else if (name == "store-lose" && count == 2) {
    store_.LoseEvents(domain(), numbers[1]);
  } else if (name == "store-hold" && count == 0) {
    faults.store_held = true;
  } else if (name == "store-release" && count == 0) {
    faults.store_held = false;
  } else if (name == "store-delay" && count == 1) {
    faults.store_delay = absl::Milliseconds(numbers[0]);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("fault ", name, ": unknown, or with a wrong number of arguments"));
  }
  return std::string();
}

std::string Commands::ListFaults() const {
  const Faults& faults = hypervisor_.faults();
  std::string text;
  for (const Faults::Rule& rule : faults.rules) {
    absl::StrAppend(&text, KindName(rule.kind), " ", rule.domain);
    if (rule.kind == Faults::Kind::kMapFail) absl::StrAppend(&text, " ", rule.entry);
    absl::StrAppend(&text, " ", rule.times, "\n");
  }
  if (faults.store_held) absl::StrAppend(&text, "store-hold\n");
  if (faults.store_delay > absl::ZeroDuration()) {
    absl::StrAppend(&text, "store-delay ", absl::ToInt64Milliseconds(faults.store_delay), "\n");
  }
  return text;
}

}  // namespace vmsg::emu
