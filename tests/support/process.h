// SPDX-License-Identifier: Apache-2.0
//
// Runs a program as a user would: arguments in, standard output and error and
// the exit status out.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace limpid::testing {

struct ProcessResult {
  int exit_status = -1;  // or 128 + signal
  std::string output;    // standard output
  std::string errors;    // standard error
};

// A running program; killed when it is destroyed. Used by one thread.
class Process {
 public:
  explicit Process(const std::vector<std::string>& command);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The next line of standard output without its end; empty after `limit` or
  // at the end.
  std::string ReadLine(std::chrono::seconds limit);
  // Reads standard error until it holds `text`; false after `limit` or at the
  // end.
  bool WaitForError(const std::string& text, std::chrono::seconds limit);
  void Signal(int signal);
  pid_t pid() const { return pid_; }
  // Reads what is left and waits for the end; kills the program after `limit`.
  ProcessResult Wait(std::chrono::seconds limit);

 private:
  // Reads what is there on one of the pipes within `limit`; false at the end of
  // both or after the limit.
  bool Pump(std::chrono::steady_clock::time_point limit);

  pid_t pid_ = -1;
  int output_ = -1;
  int errors_ = -1;
  ProcessResult result_;
  size_t line_begin_ = 0;
};

// Runs a program to its end.
ProcessResult RunProcess(const std::vector<std::string>& command,
                         std::chrono::seconds limit = std::chrono::seconds(60));

}  // namespace limpid::testing
