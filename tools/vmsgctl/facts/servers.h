// SPDX-License-Identifier: Apache-2.0
// Whether the vmsgd that a bus belongs to is there, and how an administrator is told.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace vmsg::ctl {

// Of a vmsgd in this domain.
struct Liveness {
  enum class Answer {
    kLives,
    kEnding,  // its process has ended or is about to; the kernel still holds what it had
    kNone,
    kCannotTell,
  };
  Answer answer = Answer::kCannotTell;
  pid_t pid = 0;    // with kLives and kEnding; 0: it cannot be told
  std::string why;  // with kCannotTell
};
// Looks anew each time.
using AskLiveness = std::function<Liveness()>;

class Servers {
 public:
  // `self`: this domain.
  Servers(AskLiveness ask, uint16_t self) : ask_(std::move(ask)), self_(self) {}

  Liveness Of(uint16_t backend) const;
  // It serves, as far as can be seen from here.
  bool MayLive(uint16_t backend) const;
  // A sentence for when it was asked for something and that has not happened.
  std::string WhyNoAnswer(uint16_t backend) const;
  // For programs: "running", "ending", "not running" or "unknown".
  static const char* Word(Liveness::Answer answer);

 private:
  AskLiveness ask_;
  uint16_t self_;
};

}  // namespace vmsg::ctl
