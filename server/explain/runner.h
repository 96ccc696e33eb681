// SPDX-License-Identifier: Apache-2.0
//
// Work of one request, from its plan to its summary, around a forward pass that
// somebody else makes: perhaps for several requests at once.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/explain/plan.h"
#include "server/explain/reply.h"
#include "server/explain/result.h"

namespace limpid {

// Used by one thread: Begin, Enter, OnLayer for every layer first to last,
// Finish. A status that is not ok ends it. Torch's exceptions leave.
class Runner {
 public:
  // All outlive it. `copy`: of the plan's model, to compute with.
  Runner(const ExplanationPlan& plan, const ModelCopy& copy, ResultSink& sink,
         const CancelToken& cancel);

  // Before anything is computed.
  absl::Status Begin() { return reply_.Header(); }
  // `embeddings` [1, L, E] and, of a picture, `pixels` [1, 3, H, W].
  void Enter(const at::Tensor& embeddings, const at::Tensor& pixels);
  absl::Status OnLayer(int64_t layer, const BlockAttention& attention);
  // `scores` [P, V] at the plan's readouts.
  absl::Status Finish(const at::Tensor& scores);

 private:
  bool IsReturned(int64_t layer) const;
  // Measures the values that were sent for a point.
  absl::Status MeasurePoint(size_t index, const at::Tensor& values);

  const ExplanationPlan& plan_;
  const CancelToken& cancel_;
  const ExplainRequest& request_;
  const Network& network_;
  Reply reply_;
  std::optional<AttributionContext> context_;
  std::unique_ptr<Attribution> attribution_;
  std::vector<ExplainedPoint> points_;
};

}  // namespace limpid
