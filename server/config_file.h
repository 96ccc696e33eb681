// SPDX-License-Identifier: Apache-2.0
//
// The configuration file: JSON with the schema of
// limpid.config.v1.ServerConfig.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "limpid/config/v1/server_config.pb.h"
#include "server/base/status.h"

namespace limpid {

// Reads JSON text into `config`. Every unknown field and every value of a wrong
// type goes to `mistakes` with its path and is left out of `config`; text that
// is no JSON object is one mistake of `file`. Comments are allowed.
void ParseConfigJson(const std::string& json, const std::string& file,
                     config::v1::ServerConfig& config, Violations& mistakes);

// The same for a file by its path; one that can't be read is a mistake.
void ReadConfigFile(const std::string& path, config::v1::ServerConfig& config,
                    Violations& mistakes);

// A configuration as JSON text that ParseConfigJson reads.
std::string ConfigToJson(const config::v1::ServerConfig& config);

}  // namespace limpid
