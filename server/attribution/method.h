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
#include "server/reduce/sinks.h"

namespace limpid {

// A point that is explained: whose row of attention, and which number of the
// scores at which position. The two positions are the same but for pictures,
// whose scores are the class token's.
struct ExplainedPoint {
  int64_t position = 0;
  int64_t readout = 0;
  ResolvedTarget target;
};

// What a method computes from. References outlive the attribution.
struct AttributionContext {
  const Network& network;
  at::Tensor embeddings;  // input sequence e, [1, L, E]
  at::Tensor pixels;      // of a picture, [1, 3, H, W]; else undefined
  // Positions of the explained points, one or more.
  std::vector<int64_t> positions;
  // The attention that the method looks at.
  MatrixForm form;
  ChannelReduction reduction;
  // Options that were found valid for the method and the network.
  const MethodOptions& options;
  // Bytes that the method may hold at once.
  int64_t memory_bytes = 0;

  int64_t length() const { return embeddings.size(1); }
};

// What a method returns for a point; undefined tensors: it has none.
struct AttributionResult {
  at::Tensor values;       // [L]: "attribution"
  at::Tensor layers;       // [layers, L]: "attribution.layers"
  at::Tensor elementwise;  // [L, E]: "attribution.elementwise"
  at::Tensor gradient;     // [L, E]: "gradient", by the embeddings at e
  // What the method leaves to no position.
  std::optional<double> constant;
  std::optional<double> completeness_error;
};

// What a method wants to see of each layer's attention during the forward pass
// that every request makes.
enum class AttentionNeed {
  kNothing,
  kRow,   // the rows of the explained positions, and those between
  kRows,  // all rows that they can depend on: of a causal matrix those up to
          // the last of them, else all
};

// The rows [begin, end) of `need`.
RowRange RowsFor(AttentionNeed need, const std::vector<int64_t>& positions,
                 bool causal, int64_t length);

using ProgressFunction =
    std::function<absl::Status(int64_t done, int64_t total)>;

// One request's computation. Used by one thread.
class Attribution {
 public:
  virtual ~Attribution() = default;
  // What makes a matrix of a layer's attention; null: the channel reduction of
  // the context.
  virtual std::unique_ptr<MatrixReducer> MakeReducer(
      const BlockAttention& attention, RowRange rows) const;
  // Called for layers first to last during the forward pass, if the method
  // needs attention: `matrix` is [rows.size(), L].
  virtual absl::Status OnLayer(int64_t layer, const at::Tensor& matrix,
                               RowRange rows);
  // Called once after the forward pass, when the targets are known. One result
  // per point.
  virtual absl::StatusOr<std::vector<AttributionResult>> Finish(
      const std::vector<ExplainedPoint>& points,
      const ProgressFunction& progress, const CancelToken& cancel) = 0;
};

// A request as far as its cost depends on it.
struct CostQuery {
  const Network& network;
  const MethodOptions& options;
  ChannelReduction reduction;
  int64_t length = 0;
  std::vector<int64_t> positions;
  int64_t memory_bytes = 0;

  int64_t num_points() const { return static_cast<int64_t>(positions.size()); }
};

// Beside the forward pass and what it shows: an estimate of operations, an
// upper bound of bytes.
struct MethodCost {
  double flops = 0;
  int64_t bytes = 0;
};

// A method as the list knows it.
struct MethodEntry {
  // An empty list of architectures means all that are built in.
  MethodSpec spec;
  // What it looks at unless the request says otherwise.
  ChannelReduction default_reduction = ChannelReduction::kMeanAbs;
  AttentionNeed (*need)(ChannelReduction reduction);
  std::unique_ptr<Attribution> (*make)(const AttributionContext& context);
  MethodCost (*cost)(const CostQuery& query);
};

const std::vector<MethodEntry>& ListedMethodEntries();
// Null if there is none of that name.
const MethodEntry* FindMethod(absl::string_view name);

// Adds what is wrong with options for an input of `length` positions: those
// that the method does not take, and values out of range for the network. Field
// paths begin with "options.".
void CheckOptions(const MethodSpec& spec, const MethodOptions& options,
                  const ModelInfo& info, int64_t length,
                  Violations& violations);
// The same for a baseline at the field `path`.
void CheckBaseline(const std::string& path, const Baseline& baseline,
                   const ModelInfo& info, int64_t length,
                   Violations& violations);

}  // namespace limpid
