// SPDX-License-Identifier: Apache-2.0
//
// A validated request with everything resolved and its cost bounded, so that
// refusals come before work.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/attribution/method.h"
#include "server/explain/engine.h"
#include "server/explain/points.h"
#include "server/explain/request.h"
#include "server/explain/result.h"
#include "server/explain/servable.h"

namespace limpid {

// What the engine runs. Immutable.
class ExplanationPlan final : public Plan {
 public:
  // Errors as Engine::MakePlan. `flops_per_second` is for the estimate of time.
  static absl::StatusOr<std::shared_ptr<const Plan>> Make(
      const ExplainRequest& request, std::shared_ptr<const Servable> model,
      const EngineOptions& limits, double flops_per_second);

  const Model& model() const override { return *model_; }
  const std::string& method() const override { return entry_->spec.name; }
  const Cost& cost() const override { return cost_; }
  int64_t num_tokens() const override { return length_; }
  const void* batch_group() const override { return batch_group_; }

  const Servable& servable() const { return *model_; }
  // The network of a copy of the model, in the request's precision.
  const Network& NetworkOf(const ModelCopy& copy) const {
    return copy.network->In(request_.precision);
  }
  const ExplainRequest& request() const { return request_; }
  const MethodEntry& entry() const { return *entry_; }
  // Of a text; empty for a picture.
  const std::vector<TokenSpan>& tokens() const { return tokens_; }
  // Of a picture, [3, H, W]; empty for a text.
  const std::vector<float>& pixels() const { return pixels_; }
  // Positions L, the class token included.
  int64_t length() const { return length_; }
  const std::vector<PlannedPoint>& points() const { return points_; }
  // Positions of the points, and where their scores are read: the same, or a
  // picture's class token.
  std::vector<int64_t> positions() const;
  std::vector<int64_t> readouts() const;
  // Units over which attributions are summed; empty: none are.
  const std::vector<ResultUnit>& units() const { return units_; }
  // Positions that a point's deletion and insertion curves may replace.
  std::vector<int64_t> Removable(int64_t position) const;
  MatrixForm form() const { return form_; }
  // Layers whose attention is returned, ascending.
  const std::vector<int64_t>& layers() const { return layers_; }
  // What is returned of channels, and what the method looks at.
  ChannelReduction returned_reduction() const;
  ChannelReduction method_reduction() const;
  // Channels of a returned layer whose matrices are returned; empty: all. By
  // heads the first channel of each, whose matrix is the head's.
  std::vector<int64_t> ReturnedChannels(int64_t layer) const;
  AttentionNeed need() const { return entry_->need(method_reduction()); }
  // Rows of a layer that are made, for a returned layer or another one; empty
  // if none.
  RowRange RowsOf(bool returned) const;
  // Whether both make the same of the attention of every layer.
  bool VisitsAs(const ExplanationPlan& other) const;
  int64_t method_memory_bytes() const { return method_memory_bytes_; }

 private:
  ExplanationPlan() = default;
  // Bytes of the tensors of a returned layer.
  int64_t LayerBytes() const;
  void Price(double flops_per_second);

  ExplainRequest request_;
  std::shared_ptr<const Servable> model_;
  const MethodEntry* entry_ = nullptr;
  std::vector<TokenSpan> tokens_;
  std::vector<float> pixels_;
  int64_t length_ = 0;
  std::vector<PlannedPoint> points_;
  std::vector<ResultUnit> units_;
  MatrixForm form_;
  std::vector<int64_t> layers_;
  int64_t method_memory_bytes_ = 0;
  Cost cost_;
  // The model's network in the precision.
  const Network* batch_group_ = nullptr;
};

}  // namespace limpid
