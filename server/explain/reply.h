// SPDX-License-Identifier: Apache-2.0
//
// What a request gets: results in the shapes and under the names of a reply,
// handed to its sink as they come.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/attribution/method.h"
#include "server/explain/outbox.h"
#include "server/explain/plan.h"
#include "server/explain/result.h"
#include "server/models/architecture.h"
#include "server/reduce/sinks.h"

namespace limpid {

// Used by one thread. Statuses are the sink's.
class Reply {
 public:
  // All outlive it. `device` computes.
  Reply(const ExplanationPlan& plan, const std::string& device,
        ResultSink& sink)
      : plan_(plan),
        device_(device),
        sink_(sink),
        outbox_(sink),
        info_(plan.servable().info()) {}

  absl::Status Header();
  absl::Status Progress(int64_t done, int64_t total, const char* unit) {
    return sink_.OnProgress(done, total, unit);
  }
  // A returned layer that `meter` has seen, and `entries` of the rows [L] (per
  // channel [D, L] each), undefined if no attention was asked for.
  absl::Status Layer(int64_t layer, ReconstructionMeter& meter, RowRange rows,
                     const at::Tensor& entries);
  // Predictions of the next point, from its logits [V]; returns its target.
  absl::StatusOr<ResolvedTarget> Logits(const at::Tensor& logits);
  // What the method says of a point, whose logits have come; returns the
  // values [L] as they are sent.
  absl::StatusOr<at::Tensor> Result(size_t index,
                                    const AttributionResult& result);
  void SetFaithfulness(size_t index, Faithfulness faithfulness) {
    summary_.points[index].faithfulness = std::move(faithfulness);
  }
  // The rest, and the summary. Last.
  absl::Status Finish();

 private:
  // What the names of a point's tensors begin with: nothing for the first.
  static std::string PrefixOf(size_t index);
  absl::Status Send(std::string name, const at::Tensor& tensor,
                    bool lower_triangular = false) {
    return outbox_.Post(std::move(name), tensor, lower_triangular);
  }
  // The reconstruction errors of all layers, now that they are waited for.
  void ReadErrors();
  // Zeros at special tokens, if the request wants that.
  at::Tensor WithoutSpecial(const at::Tensor& values) const;
  // Sums of the values [L], or [rows, columns] of patches, over the units.
  at::Tensor SumOverUnits(const at::Tensor& map) const;
  // Of a text's positions [L], the same; of a picture's, those of patches on
  // their grid, without the class token.
  at::Tensor OnGrid(const at::Tensor& values) const;
  // The channels that were asked for, along the last dimension.
  at::Tensor PickChannels(const at::Tensor& tensor) const;

  const ExplanationPlan& plan_;
  const std::string& device_;
  ResultSink& sink_;
  Outbox outbox_;
  const ModelInfo& info_;
  ResultSummary summary_;
  std::vector<at::Tensor> errors_;  // of summary_.layers, one number each
};

// Ids of a text, [L].
at::Tensor TokenIds(const ExplanationPlan& plan);

}  // namespace limpid
