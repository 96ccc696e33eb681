// SPDX-License-Identifier: Apache-2.0
//
// An explanation as a safetensors file; names, shapes and metadata are listed
// in README.md.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "client/explanation.h"

namespace limpid::cli {

// The strings under "__metadata__". `prediction`, `tokens_json`,
// `reconstruction_error` (an object from layer to error) and
// `completeness_error` (null without one) are JSON.
std::map<std::string, std::string> SaveMetadata(const Explanation& explanation);

// Writes every tensor of the reply, unpacked to float32 where it came smaller,
// and `tokens`. DATA_LOSS for a damaged tensor; errors of the file name it.
absl::Status SaveExplanation(const std::string& path,
                             const Explanation& explanation);

}  // namespace limpid::cli
