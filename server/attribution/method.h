// SPDX-License-Identifier: Apache-2.0
//
// What an attribution method must be able to do. One pair of files per method
// implements it; see CMakeLists.txt here for the list.
//
// Shape letters: L positions, E width.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "server/attribution/method_spec.h"
#include "server/attribution/options.h"
#include "server/base/clock.h"
#include "server/models/architecture.h"
#include "server/reduce/channel_reduction.h"

namespace limpid {

// What a method computes from. References outlive the attribution.
struct AttributionContext {
  const Network& network;
  // Input sequence e, [1, L, E].
  at::Tensor embeddings;
  // Whose row of attention is explained, and where scores are read: the same
  // but for pictures, whose scores are the class token's.
  int64_t position = 0;
  int64_t readout = 0;
  // Options that were found valid for the method and the network.
  const MethodOptions& options;
  // Bytes that the method may hold at once.
  int64_t memory_bytes = 0;
};

// What a method returns; undefined tensors: it has none.
struct AttributionResult {
  at::Tensor values;       // [L]: "attribution"
  at::Tensor layers;       // [layers, L]: "attribution.layers"
  at::Tensor elementwise;  // [L, E]: "attribution.elementwise"
  at::Tensor gradient;     // [L, E]: "gradient", by the embeddings at e
  std::optional<double> completeness_error;
};

// What a method wants to see of each layer's attention, reduced over channels.
enum class AttentionNeed {
  kNothing,
  kRow,   // [1, L]: the row of the position
  kRows,  // all rows that the row of the position can depend on: [position +
          // 1, L] of a causal matrix, else [L, L]
};

using ProgressFunction =
    std::function<absl::Status(int64_t done, int64_t total)>;

// One request's computation. Used by one thread.
class Attribution {
 public:
  virtual ~Attribution() = default;
  // Called for layers first to last during the forward pass, if the method
  // needs attention.
  virtual absl::Status OnLayer(int64_t layer, const at::Tensor& attention);
  // Called once after the forward pass, when the target is known.
  virtual absl::StatusOr<AttributionResult> Finish(
      const ResolvedTarget& target, const ProgressFunction& progress,
      const CancelToken& cancel) = 0;
};

// A method as the list knows it.
struct MethodEntry {
  // An empty list of architectures means all that are built in.
  MethodSpec spec;
  AttentionNeed need = AttentionNeed::kNothing;
  std::unique_ptr<Attribution> (*make)(const AttributionContext& context);
  // Forward and backward passes beside the one that every request makes.
  int64_t (*num_gradients)(const MethodOptions& options);
  // Bytes beside the forward pass, an upper bound for L positions.
  int64_t (*bytes)(const Network& network, const MethodOptions& options,
                   int64_t length, int64_t memory_bytes);
};

const std::vector<MethodEntry>& ListedMethodEntries();
// Null if there is none of that name.
const MethodEntry* FindMethod(absl::string_view name);

// Adds what is wrong with options: those that the method does not take, and
// values out of range for the network. Field paths begin with "options.".
void CheckOptions(const MethodSpec& spec, const MethodOptions& options,
                  const ModelInfo& info, Violations& violations);

}  // namespace limpid
