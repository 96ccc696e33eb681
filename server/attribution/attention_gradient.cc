// SPDX-License-Identifier: Apache-2.0
//
// Attention weighted with gradients: the papers' own attribution.
#include "server/attribution/attention_gradient.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/attribution/attention_pass.h"
#include "server/attribution/gradient.h"
#include "server/attribution/rollout_product.h"

namespace limpid::attributions::attention_gradient {
namespace {

// (x - min) / (max - min); zeros where all are equal.
at::Tensor MinMax(const at::Tensor& x) {
  const at::Tensor range = x.max() - x.min();
  return (x - x.min()) / at::where(range > 0, range, at::ones_like(range));
}

bool IsUpstream(const MethodOptions& options) {
  return options.compat == Compatibility::kUpstream;
}

class AttentionGradient final : public Attribution {
 public:
  explicit AttentionGradient(const AttributionContext& context)
      : context_(context),
        start_layer_(context.options.start_layer.value_or(0)) {}

  absl::StatusOr<std::vector<AttributionResult>> Finish(
      const std::vector<ExplainedPoint>& points,
      const ProgressFunction& progress, const CancelToken& cancel) override {
    LIMPID_ASSIGN_OR_RETURN(
        const std::vector<TargetGradient> gradients,
        GradientsOfTargets(context_.network, context_.embeddings, points,
                           Differentiation::kFull, /*by_block_outputs=*/true,
                           cancel));
    const auto total = static_cast<int64_t>(points.size()) + 1;
    LIMPID_RETURN_IF_ERROR(progress(1, total));
    std::vector<AttributionResult> results;
    for (size_t i = 0; i < points.size(); ++i) {
      const auto explain = IsUpstream(context_.options)
                               ? &AttentionGradient::AsPublished
                               : &AttentionGradient::WithFullMatrices;
      LIMPID_ASSIGN_OR_RETURN(
          at::Tensor values,
          (this->*explain)(points[i].position, gradients[i], cancel));
      results.push_back({});
      results.back().values = std::move(values);
      results.back().gradient = gradients[i].gradient[0];
      LIMPID_RETURN_IF_ERROR(progress(static_cast<int64_t>(i) + 2, total));
    }
    return results;
  }

 private:
  // The rollout of B[i, j] = max(A[i, j] g[j], 0), or g[i].
  absl::StatusOr<at::Tensor> WithFullMatrices(int64_t position,
                                              const TargetGradient& gradient,
                                              const CancelToken& cancel) const {
    const MethodOptions& options = context_.options;
    const RowRange rows =
        RowsFor(AttentionNeed::kRows, {position},
                context_.network.info().causal, context_.length());
    RolloutProduct product;
    const auto on_layer = [&](int64_t layer, const at::Tensor& matrix) {
      const at::Tensor by_output = gradient.block_outputs[layer][0];
      const at::Tensor weight =
          options.gradient_reduction == GradientReduction::kMaxRelu
              ? MaxRelu(by_output)
              : by_output.mean(1);
      const at::Tensor along =
          options.axis == GradientAxis::kTarget
              ? weight.narrow(0, 0, rows.size()).unsqueeze(1)
              : weight.unsqueeze(0);
      product.MultiplyWithResidual((matrix * along).clamp_min_(0),
                                   options.residual_weight.value_or(1));
    };
    LIMPID_RETURN_IF_ERROR(VisitReduced(context_, context_.reduction, rows,
                                        start_layer_, on_layer, cancel));
    return product.Row(position, context_.embeddings[0].select(1, 0));
  }

  // The procedure of the authors' code, in which every row of a layer's matrix
  // is the explained position's. A row v of the product then goes from layer
  // to layer as v <- (v + a) / (1 + sum a), since its entries add up to 1.
  absl::StatusOr<at::Tensor> AsPublished(int64_t position,
                                         const TargetGradient& gradient,
                                         const CancelToken& cancel) const {
    // Positions behind a causal one have no part in it.
    const int64_t seen =
        context_.network.info().causal ? position + 1 : context_.length();
    std::vector<at::Tensor> layers;
    const auto on_layer = [&](int64_t layer, const at::Tensor& matrix) {
      const at::Tensor weight =
          MinMax(MaxRelu(gradient.block_outputs[layer][0]).narrow(0, 0, seen));
      layers.push_back(MinMax(matrix[0].narrow(0, 0, seen) * weight));
    };
    LIMPID_RETURN_IF_ERROR(VisitReduced(context_, ChannelReduction::kMeanPos,
                                        {position, position + 1}, start_layer_,
                                        on_layer, cancel));
    at::Tensor values = at::zeros_like(context_.embeddings[0].select(1, 0));
    values[position] = 1;
    at::Tensor row = values.narrow(0, 0, seen);
    for (size_t i = layers.size(); i-- > 0;) {
      row.add_(layers[i]).div_(layers[i].sum() + 1);
    }
    return values;
  }

  static at::Tensor MaxRelu(const at::Tensor& by_output) {
    return by_output.amax(1).clamp_min(0);
  }

  const AttributionContext context_;
  const int64_t start_layer_;
};

}  // namespace

MethodEntry Entry() {
  MethodEntry entry;
  entry.spec.name = "attention-gradient";
  entry.spec.description =
      "Rollout of the layers' matrices, each entry weighted with the gradient "
      "of the target's logit by what the block adds to the stream at the "
      "source position, negative entries set to zero. Looks at mean-pos unless "
      "another channel reduction is asked for. With compat upstream: the "
      "procedure of the papers' code, which looks at one row per layer.";
  entry.spec.source = "arXiv:2403.01590, equation 24; arXiv:2405.16504";
  entry.spec.uses_target = true;
  entry.spec.options = {
      {"start_layer", "first layer of the product, 0 to layers - 1; default 0"},
      {"axis",
       "whether the gradient of the source or of the target position weights "
       "an entry: source or target; default source"},
      {"residual_weight",
       "weight of the residual connection beside the weighted attention, 0 to "
       "1000; default 1"},
      {"gradient_reduction",
       "how the gradient becomes a number per position: mean (the paper) or "
       "max-relu (the papers' code); default mean"},
      {"compat",
       "none or upstream: the procedure of the papers' code, which fixes axis, "
       "gradient, residual weight and channel reduction; default none"}};
  entry.default_reduction = ChannelReduction::kMeanPos;
  entry.need = [](ChannelReduction) { return AttentionNeed::kNothing; };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<AttentionGradient>(context);
  };
  entry.cost = [](const CostQuery& query) -> MethodCost {
    const Network& network = query.network;
    const ModelInfo& info = network.info();
    double flops = GradientFlops(query);
    for (const int64_t position : query.positions) {
      const RowRange rows =
          RowsFor(IsUpstream(query.options) ? AttentionNeed::kRow
                                            : AttentionNeed::kRows,
                  {position}, info.causal, query.length);
      flops += network.ForwardFlops(query.length) +
               info.num_layers * network.AttentionFlops(rows.end, rows.size());
    }
    // Gradients by every block's output stay while matrices are looked at.
    const int64_t kept = query.num_points() * (info.num_layers + 1) *
                         query.length * info.hidden_size *
                         static_cast<int64_t>(sizeof(double));
    return {flops, kept + std::max(network.GradientBytes(1, query.length),
                                   network.ForwardBytes(1, query.length) +
                                       network.VisitBytes(query.length) +
                                       RolloutProduct::Bytes(query.length))};
  };
  return entry;
}

}  // namespace limpid::attributions::attention_gradient
