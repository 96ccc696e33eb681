// SPDX-License-Identifier: Apache-2.0
//
// SIGINT as a call in an ordinary thread.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

namespace limpid::cli {

// Blocks SIGINT in the calling thread and in all that it starts later: to be
// called before any other thread runs.
void BlockInterrupts();

// While it lives, the first SIGINT calls `on_interrupt`. The program then has
// two seconds to end by itself; after that, or at a second SIGINT, it exits
// with status 130. One at a time, after BlockInterrupts().
class Interrupt {
 public:
  explicit Interrupt(std::function<void()> on_interrupt);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool fired() const { return fired_; }

 private:
  void Watch();

  std::function<void()> on_interrupt_;
  std::atomic<bool> fired_ = false;
  std::thread thread_;
};

}  // namespace limpid::cli
