// SPDX-License-Identifier: Apache-2.0
//
// limpid: the command-line client.
#include <google/protobuf/stubs/common.h>
#if GOOGLE_PROTOBUF_VERSION < 4022000
#include <google/protobuf/stubs/logging.h>
#endif
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "client/channel.h"
#include "client/cli/command_line.h"
#include "client/cli/commands.h"
#include "client/cli/interrupt.h"
#include "client/cli/terminal.h"
#include "client/cli/text_layout.h"
#include "client/client.h"

namespace limpid::cli {
namespace {

// Libraries must not write to stderr, which belongs to this program's own
// messages. Text that is not UTF-8 is sent as it is, so that the server can
// judge it, but Protobuf would complain about it here.
void SilenceLibraries() {
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
#if GOOGLE_PROTOBUF_VERSION < 4022000
  google::protobuf::SetLogHandler(nullptr);
#endif
}

// Of the terminal that is written to; 0 if it is none.
int TerminalColumns() {
  winsize size = {};
  for (const int file : {STDOUT_FILENO, STDERR_FILENO}) {
    if (isatty(file) && ioctl(file, TIOCGWINSZ, &size) == 0 &&
        size.ws_col > 0) {
      return size.ws_col;
    }
  }
  return 0;
}

// Help is wrapped, to 80 columns in a pipe; mistakes only on a terminal, so
// that a program finds its words; scripts for shells never.
void PrintExit(const ParseExit& exit, bool is_script) {
  const bool is_help = exit.code == kExitOk;
  int columns = std::min(TerminalColumns(), 120);
  if (columns == 0 && is_help) columns = 80;
  (is_help ? std::cout : std::cerr)
      << (is_script || columns == 0 ? exit.text : WrapHelp(exit.text, columns));
}

int Main(const std::vector<std::string>& arguments) {
  const GetEnv get_env = [](const char* name) { return std::getenv(name); };
  const std::variant<CommandLine, ParseExit> parsed =
      ParseCommandLine(arguments, get_env);
  if (const ParseExit* exit = std::get_if<ParseExit>(&parsed)) {
    PrintExit(*exit, !arguments.empty() && arguments[0] == "completion");
    return exit->code;
  }
  const CommandLine& line = std::get<CommandLine>(parsed);
  Terminal terminal{.out = std::cout,
                    .err = std::cerr,
                    .color = ChooseColor(isatty(STDOUT_FILENO) != 0, get_env),
                    .progress = isatty(STDERR_FILENO) != 0,
                    .columns = TerminalColumns()};
  const absl::StatusOr<std::unique_ptr<Client>> client =
      Client::Create(line.client);
  if (!client.ok()) {
    terminal.err << "limpid: " << Safe(client.status().message()) << "\n";
    return kExitUsage;
  }
  if (!line.client.token_file.empty() && line.client.ca_file.empty() &&
      !IsLoopback(line.client.target)) {
    terminal.err << "limpid: warning: the token travels in plain text; use "
                    "--ca\n";
  }
  Interrupt interrupt([&client] { (*client)->Cancel(); });
  int code = RunCommand(**client, line, terminal);
  std::cout.flush();
  if (!std::cout) {
    terminal.err << "limpid: cannot write to standard output\n";
    code = kExitFailed;
  }
  return interrupt.fired() ? kExitInterrupted : code;
}

}  // namespace
}  // namespace limpid::cli

int main(int argc, char** argv) {
  // gRPC's locks are absl's, which in Debian's build look for cycles each time
  // that they are taken.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  limpid::cli::BlockInterrupts();
  limpid::cli::SilenceLibraries();
  std::ios::sync_with_stdio(false);
  return limpid::cli::Main({argv + 1, argv + argc});
}
