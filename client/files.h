// SPDX-License-Identifier: Apache-2.0
//
// Whole files. Errors name the path and say why.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace limpid {

// The bytes of a file, or of standard input for "-".
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

// Writes a file, which appears under its name only once it is complete; a pipe
// or a device is written to as it is.
absl::Status WriteWholeFile(const std::string& path, absl::string_view bytes);

// Makes a folder and those above it.
absl::Status MakeFolder(const std::string& path);

}  // namespace limpid
