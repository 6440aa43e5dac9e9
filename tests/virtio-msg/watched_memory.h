// SPDX-License-Identifier: Apache-2.0
// Memory that is taken away: each access faults, is let through alone (single step), counted, and
// followed by a change of what was accessed, so that a second look would see something else.
// Deterministic, unlike a racing thread.
#pragma once

#if defined(__x86_64__)

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vmsg::testing {

class WatchedMemory {
 public:
  using Change = void (*)(std::byte* accessed);

  // `memory`: whole pages. One at a time.
  WatchedMemory(std::span<std::byte> memory, Change change)
      : memory_(memory), change_(change), accesses_(memory.size()) {
    watched_ = this;
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = OnFault;
    sigaction(SIGSEGV, &action, &old_fault_);
    action.sa_sigaction = OnStep;
    sigaction(SIGTRAP, &action, &old_step_);
    Protect(PROT_NONE);
  }
  ~WatchedMemory() { Stop(); }
  WatchedMemory(const WatchedMemory&) = delete;
  WatchedMemory& operator=(const WatchedMemory&) = delete;

  // The memory is as any other again.
  void Stop() {
    if (watched_ == nullptr) return;
    Protect(PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &old_fault_, nullptr);
    sigaction(SIGTRAP, &old_step_, nullptr);
    watched_ = nullptr;
  }

  // Accesses that began at this byte of the memory.
  int accesses(size_t offset) const { return accesses_[offset]; }

 private:
  static constexpr greg_t kTrapFlag = 0x100;  // EFLAGS.TF: trap after the next instruction

  static void OnFault(int, siginfo_t* info, void* context) {
    const size_t offset = static_cast<std::byte*>(info->si_addr) - watched_->memory_.data();
    if (offset >= watched_->memory_.size()) {
      signal(SIGSEGV, SIG_DFL);  // a real one: it comes again, and ends us
      return;
    }
    watched_->accessed_ = offset;
    ++watched_->accesses_[offset];
    watched_->Protect(PROT_READ | PROT_WRITE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= kTrapFlag;
  }

  static void OnStep(int, siginfo_t*, void* context) {
    watched_->change_(watched_->memory_.data() + watched_->accessed_);
    watched_->Protect(PROT_NONE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
  }

  void Protect(int protection) { mprotect(memory_.data(), memory_.size(), protection); }

  static inline WatchedMemory* watched_ = nullptr;  // what the signal handlers work on
  const std::span<std::byte> memory_;
  const Change change_;
  std::vector<int> accesses_;
  size_t accessed_ = 0;
  struct sigaction old_fault_ {};
  struct sigaction old_step_ {};
};

}  // namespace vmsg::testing

#endif
