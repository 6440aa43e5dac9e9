// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgctl/facts/servers.h"

#include "absl/strings/str_cat.h"

namespace vmsg::ctl {

Liveness Servers::Of(uint16_t backend) const {
  if (backend == self_) return ask_();
  return {.answer = Liveness::Answer::kCannotTell,
          .why = absl::StrCat("only domain ", backend, " itself can see that")};
}

bool Servers::MayLive(uint16_t backend) const {
  const Liveness::Answer answer = Of(backend).answer;
  return answer == Liveness::Answer::kLives || answer == Liveness::Answer::kCannotTell;
}

std::string Servers::WhyNoAnswer(uint16_t backend) const {
  const Liveness server = Of(backend);
  const std::string name =
      absl::StrCat("vmsgd in domain ", backend,
                   server.pid == 0 ? "" : absl::StrCat(", process ", server.pid, ","));
  switch (server.answer) {
    case Liveness::Answer::kLives:
      return absl::StrCat(name, " is running and has not answered");
    case Liveness::Answer::kEnding:
      return absl::StrCat(name, " is ending, and the kernel still holds its disks for it");
    case Liveness::Answer::kNone:
      return absl::StrCat("no vmsgd is running in domain ", backend);
    case Liveness::Answer::kCannotTell:
      break;
  }
  return absl::StrCat(name, " has not answered (whether it is running cannot be told: ", server.why,
                      ")");
}

const char* Servers::Word(Liveness::Answer answer) {
  switch (answer) {
    case Liveness::Answer::kLives:
      return "running";
    case Liveness::Answer::kEnding:
      return "ending";
    case Liveness::Answer::kNone:
      return "not running";
    case Liveness::Answer::kCannotTell:
      break;
  }
  return "unknown";
}

}  // namespace vmsg::ctl
