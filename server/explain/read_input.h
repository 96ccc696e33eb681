// SPDX-License-Identifier: Apache-2.0
//
// A request's input as the model reads it.
#pragma once

#include <cstdint>
#include <vector>

#include "server/explain/request.h"
#include "server/explain/servable.h"

namespace limpid {

// Token ids, or pixels [3, H, W].
struct ReadResult {
  std::vector<TokenSpan> tokens;
  std::vector<float> pixels;
  int64_t length = 0;  // positions, the class token included
};

// What is wrong with the input's fields becomes violations; what the model as
// such does not offer (WRONG_MODALITY, TOKENIZER_MISSING) is returned.
absl::StatusOr<ReadResult> ReadInput(const Input& input, const Servable& model,
                                     int64_t max_tokens,
                                     Violations& violations);

}  // namespace limpid
