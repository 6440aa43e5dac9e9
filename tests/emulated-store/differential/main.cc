// SPDX-License-Identifier: Apache-2.0
// Runs the same random requests against the emulated xenstored and a second one, and compares every
// answer and every watch event. The second one is a xenstored that runs without Xen:
//   store-differential --seed 1 --steps 20000 --socket S --ring 5=FILE --ring 6=FILE --doorbell F
// where guests' event channels show up on the FIFO as port + 1000 * domain. Without --socket the
// emulated one is compared with itself, which shows that it is deterministic.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/emulated-store/differential/client.h"
#include "tests/emulated-store/differential/generator.h"
#include "tests/emulated-store/running_store.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store::differential {
namespace {

constexpr char kNoAnswer[] = "(no answer)";  // as Client::Events has it

struct Arguments {
  uint64_t seed = 1;
  int steps = 2000;
  size_t history = 40;  // steps shown with a difference
  std::string socket;
  std::map<uint16_t, std::string> rings;
  std::string doorbell;
};

// One server under comparison: its clients and the transactions they have open.
class Side {
 public:
  explicit Side(const Arguments* real) : real_(real) {
    if (real_ == nullptr) {
      Options options;
      options.domain_exists = [](uint16_t domain) {
        return std::count(std::begin(kExisting), std::end(kExisting), domain) > 0;
      };
      emulated_ = std::make_unique<RunningStore>(options);
    }
    Connect(0);
    Connect(1);
    for (uint16_t guest : kGuests) Introduce(0, guest);
  }

  std::string Run(const Step& step) {
    switch (step.kind) {
      case Step::Kind::kOversize: {
        const bool dropped = clients_[step.actor]->IsDroppedForOversize();
        slots_[step.actor] = {};
        Connect(step.actor);
        return dropped ? "dropped" : "not dropped";
      }
      case Step::Kind::kReintroduce: {
        std::string answer =
            Text(Ask(step.actor, XS_RELEASE, 0, WithNul(absl::StrCat(step.domain))));
        return absl::StrCat(answer, ", ", Introduce(step.actor, step.domain));
      }
      case Step::Kind::kRequest:
        break;
    }
    uint32_t& open = slots_[step.actor][std::max(step.slot, 0) % kSlots];
    const uint32_t id = step.slot < 0 ? 0 : step.slot == kWrongSlot ? 999999 : open;
    std::optional<Answer> answer = Ask(step.actor, step.type, id, step.payload);
    if (answer.has_value() && answer->type == step.type) {
      if (step.type == XS_TRANSACTION_START) {
        StoreSlot(step.actor, static_cast<uint32_t>(std::atoi(answer->payload.c_str())));
        answer->payload = "(an id)";
      }
      if (step.type == XS_DIRECTORY_PART) {
        answer->payload.erase(0, answer->payload.find('\0') + 1);  // the generation
      }
      if (step.type == XS_RESET_WATCHES) slots_[step.actor] = {};
    }
    if (step.type == XS_TRANSACTION_END && step.slot >= 0 && step.slot < kSlots &&
        (step.payload == WithNul("T") || step.payload == WithNul("F"))) {
      open = 0;
    }
    return Text(answer);
  }

  std::string Events(int actor) {
    std::vector<std::string> events = clients_[actor]->Events();
    events.insert(events.begin(), early_[actor].begin(), early_[actor].end());
    early_[actor].clear();
    return absl::CEscape(absl::StrJoin(events, "; "));
  }

 private:
  static std::string WithNul(absl::string_view text) {
    return absl::StrCat(text, absl::string_view("", 1));
  }

  static std::string Text(const std::optional<Answer>& answer) {
    if (!answer.has_value()) return kNoAnswer;
    return absl::StrCat(answer->type, " ", absl::CEscape(answer->payload));
  }

  void StoreSlot(int actor, uint32_t id) {
    // The oldest slot is given up: its transaction stays open, as a client's might.
    std::array<uint32_t, kSlots>& slots = slots_[actor];
    auto free = std::find(slots.begin(), slots.end(), 0u);
    if (free == slots.end()) {
      std::rotate(slots.begin(), slots.begin() + 1, slots.end());
      free = slots.end() - 1;
    }
    *free = id;
  }

  std::optional<Answer> Ask(int actor, uint32_t type, uint32_t id, const std::string& payload) {
    std::optional<Answer> answer = clients_[actor]->Ask(type, id, payload);
    if (answer.has_value()) {
      for (std::string& event : answer->events) early_[actor].push_back(std::move(event));
    }
    return answer;
  }

  std::string Introduce(int actor, uint16_t guest) {
    std::optional<Answer> answer = Ask(actor, XS_INTRODUCE, 0,
                                       absl::StrCat(WithNul(absl::StrCat(guest)), WithNul("1"),
                                                    WithNul(absl::StrCat(kGuestPort))));
    for (int i = 0; i < kActorCount; ++i) {
      if (kActors[i].domain != guest) continue;
      slots_[i] = {};
      early_[i].clear();
      Connect(i);
    }
    return Text(answer);
  }

  void Connect(int actor) {
    const uint16_t domain = kActors[actor].domain;
    std::unique_ptr<Transport> transport;
    if (real_ == nullptr) {
      transport = ConnectSocket(emulated_->Socket(domain));
    } else if (domain == 0) {
      transport = ConnectSocket(real_->socket);
    } else {
      transport = OpenRing(real_->rings.at(domain), real_->doorbell, kGuestPort + 1000u * domain);
    }
    if (transport == nullptr) {
      std::fprintf(stderr, "%s cannot connect\n", kActors[actor].name);
      std::exit(2);
    }
    clients_[actor] = std::make_unique<Client>(std::move(transport));
  }

  const Arguments* const real_;
  std::unique_ptr<RunningStore> emulated_;
  std::array<std::unique_ptr<Client>, kActorCount> clients_;
  std::array<std::array<uint32_t, kSlots>, kActorCount> slots_ = {};
  std::array<std::vector<std::string>, kActorCount> early_;  // events that came with an answer
};

class Comparison {
 public:
  Comparison(Side& left, Side& right, size_t history)
      : left_(left), right_(right), history_limit_(history) {}

  bool Run(const Step& step) {
    history_.push_back(Describe(step));
    if (history_.size() > history_limit_) history_.pop_front();
    const std::string answer = left_.Run(step);
    if (!Same("answer", answer, right_.Run(step))) return false;
    absl::StrAppend(&history_.back(), " -> ", absl::string_view(answer).substr(0, 40));
    ++tally_[absl::StartsWith(answer, "16 ") ? answer.substr(3, answer.find('\\') - 3) : "success"];
    for (int actor = 0; actor < kActorCount; ++actor) {
      const std::string events = left_.Events(actor);
      if (!Same(absl::StrCat("events of ", kActors[actor].name), events, right_.Events(actor))) {
        return false;
      }
      if (!events.empty()) ++tally_["with events"];
    }
    return true;
  }

  // How often each kind of answer was seen: what the run was able to compare.
  std::string Tally() const { return absl::StrJoin(tally_, ", ", absl::PairFormatter(" ")); }

 private:
  bool Same(const std::string& what, const std::string& left, const std::string& right) {
    const bool answered = left.find(kNoAnswer) == std::string::npos;
    if (left == right && answered) return true;
    std::printf("last steps:\n  %s\ndifferent %s:\n  emulated: %.600s\n  other:    %.600s\n",
                absl::StrJoin(history_, "\n  ").c_str(), what.c_str(), left.c_str(), right.c_str());
    return false;
  }

  Side& left_;
  Side& right_;
  const size_t history_limit_;
  std::deque<std::string> history_;
  std::map<std::string, int> tally_;
};

int Main(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--seed") {
      arguments.seed = std::strtoull(value.c_str(), nullptr, 10);
    } else if (name == "--steps") {
      arguments.steps = std::atoi(value.c_str());
    } else if (name == "--history") {
      arguments.history = static_cast<size_t>(std::atoi(value.c_str()));
    } else if (name == "--socket") {
      arguments.socket = value;
    } else if (name == "--ring") {
      arguments.rings[static_cast<uint16_t>(std::atoi(value.c_str()))] =
          value.substr(value.find('=') + 1);
    } else if (name == "--doorbell") {
      arguments.doorbell = value;
    } else {
      std::fprintf(stderr, "unknown option %s\n", name.c_str());
      return 2;
    }
  }
  Side left(nullptr);
  Side right(arguments.socket.empty() ? nullptr : &arguments);
  Comparison comparison(left, right, arguments.history);
  for (const Step& step : Generator::Setup()) {
    if (!comparison.Run(step)) return 1;
  }
  Generator generator(arguments.seed);
  for (int i = 0; i < arguments.steps; ++i) {
    if (!comparison.Run(generator.Next())) {
      std::printf("at step %d of seed %llu\n", i, static_cast<unsigned long long>(arguments.seed));
      return 1;
    }
  }
  std::printf("%d steps of seed %llu: the same (%s)\n", arguments.steps,
              static_cast<unsigned long long>(arguments.seed), comparison.Tally().c_str());
  return 0;
}

}  // namespace
}  // namespace vmsg::emu::store::differential

int main(int argc, char** argv) { return vmsg::emu::store::differential::Main(argc, argv); }
