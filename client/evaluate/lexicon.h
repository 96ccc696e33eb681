// SPDX-License-Identifier: Apache-2.0
//
// Attributions of words against what people say of the same words by
// themselves. Only sentences with a rated word count.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/evaluate/protocol.h"
#include "client/evaluate/text_curves.h"

namespace limpid::evaluate {

// A word's attribution is the sum of its tokens'; a word without a rating is
// rated 0. `options.classes` are the tokens of the positive and the negative
// class; their difference is explained. Scores per sentence: Spearman's
// correlation of the magnitudes with the ratings' magnitudes, precision of the
// largest 1 and 3 magnitudes (is the word rated), Spearman's correlation with
// signs. INVALID_ARGUMENT if there are not two classes or no sentence has two
// words, one of them rated.
absl::StatusOr<std::unique_ptr<Protocol>> MakeLexicon(
    const TextOptions& options, const std::map<std::string, double>& ratings);

}  // namespace limpid::evaluate
