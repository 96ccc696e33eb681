// SPDX-License-Identifier: Apache-2.0
//
// A forward pass of a method's own, for what it can only compute once the
// target is known.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "server/attribution/method.h"

namespace limpid {

// Calls `on_layer` with the reduced matrix [rows.size(), L] of each layer,
// first to last, from start_layer on.
absl::Status VisitReduced(
    const AttributionContext& context, ChannelReduction reduction,
    RowRange rows, int64_t start_layer,
    const std::function<void(int64_t layer, const at::Tensor& matrix)>&
        on_layer,
    const CancelToken& cancel);

}  // namespace limpid
