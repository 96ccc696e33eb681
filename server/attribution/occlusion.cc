// SPDX-License-Identifier: Apache-2.0
//
// How much the score falls when a token or a patch is not there.
#include "server/attribution/occlusion.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/attribution/baseline.h"
#include "server/attribution/gradient.h"
#include "server/attribution/masking.h"

namespace limpid::attributions::occlusion {
namespace {

int64_t WindowSize(const MethodOptions& options) {
  return options.occlusion_window.value_or(1);
}

// Which positions every window covers, [M, L] bool: runs of tokens up to the
// last explained one, or squares of patches.
at::Tensor Windows(const ModelInfo& info, int64_t length,
                   const std::vector<int64_t>& positions, int64_t size) {
  if (info.modality == Modality::kText) {
    const int64_t seen =
        *std::max_element(positions.begin(), positions.end()) + 1;
    const int64_t width = std::min(size, seen);
    const int64_t count = seen - width + 1;
    at::Tensor windows = at::zeros({count, length}, at::kBool);
    for (int64_t i = 0; i < count; ++i) {
      windows[i].narrow(0, i, width).fill_(true);
    }
    return windows;
  }
  const int64_t height = std::min(size, info.grid_rows);
  const int64_t width = std::min(size, info.grid_columns);
  std::vector<at::Tensor> windows;
  for (int64_t row = 0; row + height <= info.grid_rows; ++row) {
    for (int64_t column = 0; column + width <= info.grid_columns; ++column) {
      at::Tensor grid =
          at::zeros({info.grid_rows, info.grid_columns}, at::kBool);
      grid.narrow(0, row, height).narrow(1, column, width).fill_(true);
      const at::Tensor flat = grid.view(-1);
      windows.push_back(at::cat(
          {flat.narrow(0, 0, info.class_token), at::zeros({1}, at::kBool),
           flat.narrow(0, info.class_token, flat.size(0) - info.class_token)}));
    }
  }
  return at::stack(windows);
}

class Occlusion final : public Attribution {
 public:
  explicit Occlusion(const AttributionContext& context) : context_(context) {}

  absl::StatusOr<std::vector<AttributionResult>> Finish(
      const std::vector<ExplainedPoint>& points,
      const ProgressFunction& progress, const CancelToken& cancel) override {
    const MethodOptions& options = context_.options;
    const at::Tensor windows =
        Windows(context_.network.info(), context_.length(), context_.positions,
                WindowSize(options));
    // The first variant is the input as it is.
    const at::Tensor replaced =
        at::cat({at::zeros({1, context_.length()}, at::kBool), windows});
    std::vector<MaskedScore> scores;
    for (const ExplainedPoint& point : points) {
      scores.push_back(
          {point.readout, [target = point.target](const at::Tensor& answers) {
             return TargetScore(answers, target);
           }});
    }
    LIMPID_ASSIGN_OR_RETURN(
        const at::Tensor measured,
        ScoreVariants(
            context_,
            BaselineEmbeddings(context_, options.baseline.value_or(Baseline())),
            replaced, scores, progress, cancel));
    // A position's value is the mean over the windows that cover it.
    const at::Tensor covers = windows.to(at::kDouble);
    const at::Tensor share =
        covers / covers.sum(0, /*keepdim=*/true).clamp_min(1);
    const at::Tensor falls =
        measured.narrow(0, 0, 1) - measured.slice(0, 1);  // [M, P]
    const at::Tensor values = at::mm(share.t(), falls);   // [L, P]
    std::vector<AttributionResult> results(points.size());
    for (size_t i = 0; i < points.size(); ++i) {
      results[i].values = values.select(1, static_cast<int64_t>(i));
    }
    return results;
  }

 private:
  const AttributionContext context_;
};

}  // namespace

MethodEntry Entry() {
  MethodEntry entry;
  entry.spec.name = "occlusion";
  entry.spec.description =
      "By how much the target's logit falls when a token or patch is replaced, "
      "each by itself or in windows; a position that several windows cover has "
      "their mean. Knows nothing of the network's inside.";
  entry.spec.source = "arXiv:1311.2901, section 4.2";
  entry.spec.uses_target = true;
  entry.spec.options = {
      {"baseline", std::string("what stands in its place: ") +
                       kBaselineChoices + "; default zero"},
      {"occlusion_window",
       "tokens in a row, or patches per side of a square, that are replaced "
       "together, 1 to 64; default 1"}};
  entry.need = [](ChannelReduction) { return AttentionNeed::kNothing; };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<Occlusion>(context);
  };
  entry.cost = [](const CostQuery& query) {
    return CostOfVariants(query, query.length + 1);
  };
  return entry;
}

}  // namespace limpid::attributions::occlusion
