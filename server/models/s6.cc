// SPDX-License-Identifier: Apache-2.0
#include "server/models/s6.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/models/kernel_ops.h"
#include "server/models/layers.h"

namespace limpid {

S6Weights TakeS6(WeightReader& reader, const std::string& mixer,
                 const std::string& suffix, const S6Sizes& sizes,
                 bool conv_bias) {
  const int64_t inner = sizes.inner;
  const auto name = [&](const char* part, const char* kind) {
    return std::vector<std::string>{absl::StrCat(mixer, part, suffix, kind)};
  };
  S6Weights w;
  w.conv_weight =
      reader.Take(name("conv1d", ".weight"), {inner, 1, sizes.conv_width});
  w.conv_bias = reader.TakeIf(conv_bias, name("conv1d", ".bias"), {inner});
  w.x_weight = reader.Take(name("x_proj", ".weight"),
                           {sizes.rank + 2 * sizes.state, inner});
  w.step_weight =
      reader.Take(name("dt_proj", ".weight"), {inner, sizes.rank});
  w.step_bias = reader.Take(name("dt_proj", ".bias"), {inner});
  w.a = reader.Take({absl::StrCat(mixer, "A", suffix, "_log")},
                    {inner, sizes.state});
  w.skip = reader.Take(name("D", ""), {inner});
  return w;
}

void FinishS6(S6Weights& weights) {
  weights.conv_weight = weights.conv_weight.squeeze(1).contiguous();
  weights.a = -weights.a.exp();
}

DirectionTrace S6Run::Trace(const S6Weights& weights, int64_t i) const {
  DirectionTrace direction;
  direction.recurrence =
      MakeS6Operator({delta[i], weights.a, b[i], c[i], weights.skip});
  direction.conv_weight = weights.conv_weight;
  direction.conv_bias = weights.conv_bias;
  direction.conv = conv[i];
  direction.ratio = ratio[i];
  return direction;
}

S6Run RunS6(const at::Tensor& x, const S6Weights& weights,
            const S6Sizes& sizes, const Pass& pass) {
  const int64_t rank = sizes.rank, state = sizes.state;
  S6Run run;
  run.conv = Convolve(x, weights.conv_weight, weights.conv_bias);
  run.ratio = pass.Factor(at::sigmoid(run.conv));
  const at::Tensor activated = run.ratio * run.conv;
  const at::Tensor selected = Project(activated, weights.x_weight);
  const auto part = [&](int64_t begin, int64_t size) {
    const at::Tensor raw = selected.narrow(-1, begin, size);
    if (!sizes.selection_norm) return raw;
    return raw * at::rsqrt(raw.square().mean(-1, /*keepdim=*/true) +
                           *sizes.selection_norm);
  };
  run.delta = pass.Factor(at::softplus(
      Project(part(0, rank), weights.step_weight, weights.step_bias)));
  run.b = pass.Factor(part(rank, state));
  run.c = pass.Factor(part(rank + state, state));
  run.y = SelectiveScan(activated, run.delta, run.b, run.c, weights.a,
                        weights.skip);
  return run;
}

S6Cost CostOfS6(const S6Sizes& sizes) {
  const int64_t inner = sizes.inner, rank = sizes.rank, state = sizes.state;
  S6Cost cost;
  cost.forward = 8 * inner + 3 * (rank + 2 * state);
  cost.gradient =
      (10 + sizes.conv_width) * inner + 4 * (rank + 2 * state);
  cost.backward = 16 * inner + 4 * (rank + 2 * state) +
                  (state + 1) * std::min<int64_t>(inner, 1024);
  cost.flops = 2.0 * inner * (2 * rank + 2 * state) +
               inner * (2.0 * sizes.conv_width + 8.0 * state + 20);
  cost.entry_flops = 2.0 * (state + sizes.conv_width) + 4;
  return cost;
}

}  // namespace limpid
