// SPDX-License-Identifier: Apache-2.0
//
// Protocols that take tokens away or bring them back in the order of their
// relevance and watch the model's answer. A token that is away is replaced by
// another one; the sequence keeps its length.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "client/evaluate/protocol.h"
#include "client/evaluate/text_data.h"

namespace limpid::evaluate {

struct TextOptions {
  std::vector<Sentence> sentences;
  // Tokens that are the classes, at least two; empty: the whole vocabulary.
  std::vector<int64_t> classes;
  int64_t replacement = 0;
};

// Logits of the classes. INVALID_ARGUMENT if one is not in the vocabulary.
absl::StatusOr<std::vector<float>> ClassLogits(
    const std::vector<float>& logits, const std::vector<int64_t>& classes);

// What is explained where one class is meant: its logit, minus the other one's
// where there are exactly two.
v1::Target ClassTarget(const std::vector<int64_t>& classes, int64_t chosen);

// Removes the most relevant tokens first (positive) or the least relevant first
// (negative); top-1 accuracy against the prediction on the whole input at
// 10, 20, ... 90 %; the area is the trapezoid's divided by 0.8, in percent.
std::unique_ptr<Protocol> MakeTextPerturbation(const TextOptions& options);

// From replacements only, reveals tokens by descending relevance; probability
// of the true class at 0, 10, ... 100 %; its area is AUAC. Every sentence needs
// a label, else INVALID_ARGUMENT.
absl::StatusOr<std::unique_ptr<Protocol>> MakeActivation(
    const TextOptions& options);

// Replaces tokens by ascending magnitude of their relevance; squared change of
// the classes' logits, summed, at 0, 10, ... 100 %; its area is AU-MSE.
std::unique_ptr<Protocol> MakePruning(const TextOptions& options);

}  // namespace limpid::evaluate
