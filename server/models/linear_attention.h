// SPDX-License-Identifier: Apache-2.0
//
// What GLA, RetNet, HGRN2, DeltaNet and Gated DeltaNet have in common in the
// layout of flash-linear-attention 0.4.0, which differs from the papers in
// details: layers of a mixer and a gated MLP, each behind a norm. A mixer
// projects queries, keys and values, sends the values through a recurrence
// that is made of the others, and its output through a norm and a gate.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>

#include "server/checkpoint/hf_config.h"
#include "server/models/architecture.h"
#include "server/models/kernel_ops.h"
#include "server/models/pass.h"
#include "server/models/weights.h"

namespace limpid {

struct LinearAttentionConfig {
  int64_t vocabulary = 0;  // V
  int64_t hidden = 0;      // E
  int64_t mlp = 0;         // F
  int64_t num_layers = 0;
  int64_t num_heads = 0;      // H: of values and of the recurrence
  int64_t num_key_heads = 0;  // of queries and keys
  int64_t key_size = 0;       // N: of a head, of queries too
  int64_t value_size = 0;     // P: of a head
  int64_t conv_width = 0;     // K; 0: no short convolutions
  bool conv_bias = false;
  bool silu_keys = false;    // activation of queries and keys
  bool silu_values = false;  // activation of values
  bool rank_one = false;     // whether the recurrence has left and right
  // The norm behind the recurrence: its groups are the heads, or there is one.
  bool norm_heads = true;
  bool norm_weight = true;
  double norm_epsilon = 0;
  bool gate = false;
  double epsilon = 0;  // of all other norms
  bool tied_head = false;

  int64_t inner() const { return num_heads * value_size; }  // D
  int64_t keys() const { return num_key_heads * key_size; }
};

// The fields that all have; the rest is left to the caller. Wrong fields are
// noted in `file`. `hidden_ratio` and `short_conv` are defaults.
LinearAttentionConfig ReadLinearAttention(HfConfig& file, int64_t hidden_ratio,
                                          bool short_conv);
// Notes `field` if it is not `value`: flash-linear-attention's layers know it,
// but its models leave it at that, whatever the configuration says.
void RequireValue(HfConfig& file, const char* field, bool value);
// Heads from num_heads, expand_k and expand_v, whose defaults are given.
void ReadExpandedHeads(HfConfig& file, int64_t num_heads, double expand_k,
                       double expand_v, LinearAttentionConfig& config);
// The same for GLA and RetNet, which have more options.
void ReadGatedHeads(HfConfig& file, int64_t num_heads, double expand_k,
                    double expand_v, LinearAttentionConfig& config);

// What a recurrence is made of.
struct RecurrenceInput {
  at::Tensor normed;  // [B, L, E]: what the layer's projections see
  // [B, L, num_key_heads, N]: projected, convolved and activated, where the
  // configuration says so.
  at::Tensor query, key;
};
// The recurrence at an input, with H heads and the query not yet scaled by
// N^-1/2. Asks the pass for factors.
using MakeRecurrence =
    std::function<FrozenRecurrence(const RecurrenceInput&, const Pass&)>;
// Takes the tensors of layer `index` that only its architecture has, which
// start with `prefix`. Some may be undefined until the reader's status is seen.
using TakeRecurrence =
    std::function<MakeRecurrence(int64_t index, const std::string& prefix)>;

absl::StatusOr<std::unique_ptr<const Network>> BuildLinearAttention(
    const char* architecture, const LinearAttentionConfig& config,
    WeightReader& reader, const TakeRecurrence& take);

// Into how many heads of the kernels a head is split, whose values are too many
// for one: they share their matrix.
int64_t SplitOfHead(int64_t value_size);

// x / sqrt(sum(x^2) + 1e-6) over the last dimension.
at::Tensor NormalizeL2(const at::Tensor& x);

// Every head of x [B, L, H, n] `count` times in a row.
at::Tensor RepeatHeads(const at::Tensor& x, int64_t count);

// The delta rule: S <- decay S, then S <- S + strength key (value - S^T key)^T.
// Queries and keys [B, L, H, N]; strength and decay [B, L, H, 1] or broadcast.
FrozenRecurrence DeltaRule(const at::Tensor& query, const at::Tensor& key,
                           const at::Tensor& strength, const at::Tensor& decay);

}  // namespace limpid
