// SPDX-License-Identifier: Apache-2.0
#include "server/config_flags.h"

#include <CLI/CLI.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/version.h"

namespace limpid {
namespace {

struct TextFlag {
  CLI::Option* option;
  std::optional<std::string> Flags::*value;
};

}  // namespace

Flags ParseFlags(const std::vector<std::string>& arguments,
                 Violations& mistakes) {
  Flags flags;
  CLI::App app("Explains gated-linear recurrent networks over gRPC.",
               "limpid-server");
  app.set_version_flag("--version", absl::StrCat("limpid-server ", kVersion));
  // What is unknown is collected, not thrown at the first.
  app.allow_extras();
  std::vector<TextFlag> texts;
  const auto text = [&](const char* name,
                        std::optional<std::string> Flags::*value,
                        const char* type, const char* help) {
    CLI::Option* option = app.add_option(name, CLI::callback_t(), help);
    option->type_name(type);
    // Zero values are allowed, so that a missing one does not hide what else is
    // wrong.
    option->expected(0, 1);
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    texts.push_back({option, value});
  };
  text("--model-repository", &Flags::model_repository, "DIR",
       "Folder of model folders");
  text("--listen", &Flags::listen, "HOST:PORT",
       "gRPC listener; port 0 takes a free one (127.0.0.1:0)");
  text("--metrics", &Flags::metrics, "HOST:PORT|off",
       "Listener of GET /metrics (127.0.0.1:0)");
  text("--device", &Flags::device, "auto|cpu|cuda|cuda:N,N...",
       "Where models are computed (auto)");
  text("--health", &Flags::health, "HOST:PORT",
       "Plain listener that serves nothing but health");
  text("--config", &Flags::config, "FILE",
       "Configuration file, JSON; flags override it");
  app.add_flag("--allow-plaintext", flags.allow_plaintext,
               "Allow plain-text listeners beyond loopback");
  app.add_flag("--print-config", flags.print_config,
               "Print the effective configuration and leave");
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    flags.print = app.help();
    return flags;
  } catch (const CLI::CallForVersion& version) {
    flags.print = absl::StrCat(version.what(), "\n");
    return flags;
  } catch (const CLI::ParseError& e) {
    mistakes.Add("command line", e.what());
    return flags;
  }
  for (const std::string& extra : app.remaining()) {
    if (absl::StartsWith(extra, "-")) {
      mistakes.Add(extra, "unknown flag; see --help");
    } else {
      mistakes.Add(extra, "stray word; see --help");
    }
  }
  for (const TextFlag& flag : texts) {
    if (flag.option->count() == 0) continue;
    const std::vector<std::string>& results = flag.option->results();
    if (results.empty() || results.back().empty()) {
      mistakes.Add(flag.option->get_name(), "needs a value");
    } else {
      flags.*flag.value = results.back();
    }
  }
  return flags;
}

}  // namespace limpid
