// SPDX-License-Identifier: Apache-2.0
#include "client/cli/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <utility>

#include "client/cli/command_line.h"

namespace limpid::cli {
namespace {

// SIGUSR1 tells the watching thread to end; nobody else is to see it.
sigset_t WatchedSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

}  // namespace

void BlockInterrupts() {
  const sigset_t signals = WatchedSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

Interrupt::Interrupt(std::function<void()> on_interrupt)
    : on_interrupt_(std::move(on_interrupt)), thread_([this] { Watch(); }) {}

Interrupt::~Interrupt() {
  pthread_kill(thread_.native_handle(), SIGUSR1);
  thread_.join();
}

void Interrupt::Watch() {
  // Waiting works even where the shell had SIGINT ignored, as it does for
  // background jobs.
  const sigset_t signals = WatchedSignals();
  int received = 0;
  sigwait(&signals, &received);
  if (received != SIGINT) return;
  fired_ = true;
  on_interrupt_();
  const timespec grace = {.tv_sec = 2, .tv_nsec = 0};
  if (sigtimedwait(&signals, nullptr, &grace) != SIGUSR1) {
    _exit(kExitInterrupted);
  }
}

}  // namespace limpid::cli
