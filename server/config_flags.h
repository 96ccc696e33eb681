// SPDX-License-Identifier: Apache-2.0
//
// Flags of limpid-server as text, before anything is made of them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/base/status.h"

namespace limpid {

struct Flags {
  std::optional<std::string> model_repository, listen, metrics, device, health,
      config;
  bool allow_plaintext = false;
  bool print_config = false;
  // Text of --help or --version, when asked for.
  std::string print;
};

// Unknown flags, stray words and missing values go to `mistakes`, all of them.
Flags ParseFlags(const std::vector<std::string>& arguments,
                 Violations& mistakes);

}  // namespace limpid
