// SPDX-License-Identifier: Apache-2.0
//
// Blocks whose heads go through a recurrence, a normaliser each, and a gate:
// RWKV-5 to 7 and mLSTM.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "server/models/architecture.h"
#include "server/models/kernel_ops.h"
#include "server/models/layers.h"
#include "server/models/residual_network.h"

namespace limpid {

// The forms that such blocks have.
std::vector<AttentionForm> NormedHeadForms();

// A layer norm of every head by itself.
struct HeadNorm {
  Affine affine;  // [D]
  double epsilon = 0;
  // Heads of the recurrence that are one head of the norm.
  int64_t split = 1;
};

// Such a block from its recurrence on: values [B, L, D] go through the
// recurrence, the normaliser and the gate. `direct` [B, L, D] goes past the
// normaliser, undefined: nothing. Shows the attention to the pass, with the
// residual stream [B, L, E] and the output projection that are around it;
// returns what enters the latter. Centring commutes with the recurrence, so the
// matrix acts on values centred per head.
at::Tensor RunNormedHeads(const FrozenRecurrence& recurrence,
                          const at::Tensor& value, const at::Tensor& direct,
                          const at::Tensor& gate, const HeadNorm& norm,
                          const at::Tensor& stream,
                          const OutputProjection& projection, Pass& pass);
// What it costs, for D channels in heads of N keys.
void AddNormedHeadsCost(int64_t length, int64_t inner, int64_t key_size,
                        LayerCost& cost);

}  // namespace limpid
