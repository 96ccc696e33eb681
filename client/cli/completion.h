// SPDX-License-Identifier: Apache-2.0
//
// Scripts by which shells complete commands, flags and their values. Made from
// the parser itself, so they know what it knows.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace limpid::cli {

// The script for "bash", "zsh" or "fish"; empty for any other shell. Names of
// models and methods are asked of the server that LIMPID_SERVER names.
std::string CompletionScript(const CLI::App& app, const std::string& shell);

}  // namespace limpid::cli
