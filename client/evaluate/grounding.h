// SPDX-License-Identifier: Apache-2.0
//
// Whether the token that is known to matter is on top: sequences of keys and
// values that end with a key, as the recall models read them (`k3f7a1b9f`).
#pragma once

#include <memory>
#include <string>

#include "client/evaluate/protocol.h"

namespace limpid::evaluate {

struct GroundingOptions {
  size_t items = 500;
  int least_pairs = 4, most_pairs = 8;  // 1 to 10: values are distinct digits
  uint64_t seed = 0;
};

// A sequence with its truth.
struct RecallSequence {
  std::string text;
  size_t key_at = 0;  // index of the queried pair's key; its value comes next
};

// Sequence number `index` of those that the seed stands for.
RecallSequence MakeRecallSequence(const GroundingOptions& options,
                                  size_t index);

// Ranks the magnitudes of all tokens but the last, which is the query. Scores:
// whether key or value token is on top, and the better rank of the two.
std::unique_ptr<Protocol> MakeGrounding(const GroundingOptions& options);

}  // namespace limpid::evaluate
