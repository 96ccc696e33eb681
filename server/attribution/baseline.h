// SPDX-License-Identifier: Apache-2.0
//
// Embeddings that stand for "nothing there".
#pragma once

#include <ATen/core/Tensor.h>

#include "server/attribution/method.h"

namespace limpid {

// The baseline at every position of the input, [L, E]. The baseline must have
// passed CheckBaseline.
at::Tensor BaselineEmbeddings(const AttributionContext& context,
                              const Baseline& baseline);

// Pixels [1, 3, H, W] after a Gaussian blur whose standard deviation is a
// sixteenth of the shorter side; beyond the border the picture's edge goes on.
at::Tensor Blurred(const at::Tensor& pixels);

// Where integrated gradients begin if nobody says: zero embeddings for text,
// for pictures the blurred picture. Near zero embeddings, which no picture has,
// the norm of each block amplifies what is left of the input by up to 1 /
// sqrt(its epsilon), one block after the other, and the scores swing at every
// scale on the way to the input: no number of steps adds up.
Baseline DefaultBaseline(const ModelInfo& info);

// How the option is described in a method's spec, which adds its default.
extern const char kBaselineChoices[];

}  // namespace limpid
