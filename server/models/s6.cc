// SPDX-License-Identifier: Apache-2.0
#include "server/models/s6.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/models/kernel_ops.h"
#include "server/models/layers.h"
#include "server/models/side_by_side.h"

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
  w.step_weight = reader.Take(name("dt_proj", ".weight"), {inner, sizes.rank});
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

DirectionTrace S6Run::Trace(const S6Weights& weights) const {
  DirectionTrace direction;
  direction.recurrence = MakeS6Operator({delta, weights.a, b, c, weights.skip});
  direction.conv_weight = weights.conv_weight;
  direction.conv_bias = weights.conv_bias;
  direction.conv = conv;
  direction.ratio = ratio;
  return direction;
}

namespace {

// x_proj's outputs: the step's low-rank form, B and C.
struct Selection {
  at::Tensor step, b, c;
};
Selection Select(const at::Tensor& activated, const S6Weights& weights,
                 const S6Sizes& sizes, const Pass& pass) {
  const at::Tensor selected = Project(activated, weights.x_weight, pass);
  const auto part = [&](int64_t begin, int64_t size) {
    const at::Tensor raw = selected.narrow(-1, begin, size);
    if (!sizes.selection_norm) return raw;
    return raw * at::rsqrt(raw.square().mean(-1, /*keepdim=*/true) +
                           *sizes.selection_norm);
  };
  return {part(0, sizes.rank), part(sizes.rank, sizes.state),
          part(sizes.rank + sizes.state, sizes.state)};
}

// What AfterScan says, as operations that have gradients.
at::Tensor Followed(const at::Tensor& scanned, const at::Tensor& gate,
                    const AfterScan& after) {
  at::Tensor y = after.reversed ? scanned.flip(1) : scanned;
  if (after.added.defined()) y = y + after.added;
  if (gate.defined()) y = y * gate;
  return after.scale == 1 ? y : y * after.scale;
}

// A recurrence that has its inputs, with kernels that have no gradients.
struct FusedS6 {
  at::Tensor activated;
  S6Run run;  // but for y and gate
};

FusedS6 BeforeScan(const at::Tensor& x, const S6Weights& weights,
                   const S6Sizes& sizes, bool reversed, const Pass& pass) {
  Convolved conv =
      ConvolveAndActivate(x, weights.conv_weight, weights.conv_bias, reversed,
                          pass.visits(), pass.packing);
  const Selection selection = Select(conv.activated, weights, sizes, pass);
  FusedS6 fused;
  S6Run& run = fused.run;
  run.conv = std::move(conv.conv);
  run.ratio = std::move(conv.ratio);
  run.delta =
      Project(selection.step, weights.step_weight, weights.step_bias, pass);
  at::softplus_out(run.delta, run.delta);
  run.b = selection.b;
  run.c = selection.c;
  fused.activated = std::move(conv.activated);
  return fused;
}

S6Run Scan(FusedS6 fused, const S6Weights& weights, const AfterScan& after,
           const Pass& pass) {
  S6Run run = std::move(fused.run);
  Scanned scanned =
      SelectiveScan(fused.activated, run.delta, run.b, run.c, weights.a,
                    weights.skip, after, pass.visits(), pass.packing);
  run.y = std::move(scanned.y);
  run.gate = std::move(scanned.gate);
  return run;
}

}  // namespace

S6Run RunS6(const at::Tensor& x, const S6Weights& weights, const S6Sizes& sizes,
            const AfterScan& after, const Pass& pass) {
  if (pass.fused()) {
    return Scan(BeforeScan(x, weights, sizes, after.reversed, pass), weights,
                after, pass);
  }
  S6Run run;
  if (after.gate_input.defined()) {
    run.gate = pass.Factor(at::silu(after.gate_input));
  }
  run.conv = Convolve(after.reversed ? x.flip(1) : x, weights.conv_weight,
                      weights.conv_bias, pass.packing);
  run.ratio = pass.Factor(at::sigmoid(run.conv));
  const at::Tensor activated = run.ratio * run.conv;
  const Selection selection = Select(activated, weights, sizes, pass);
  run.delta = pass.Factor(at::softplus(
      Project(selection.step, weights.step_weight, weights.step_bias, pass)));
  run.b = pass.Factor(selection.b);
  run.c = pass.Factor(selection.c);
  run.y = Followed(SelectiveScan(activated, run.delta, run.b, run.c, weights.a,
                                 weights.skip),
                   run.gate, after);
  return run;
}

S6Both RunS6BothWays(const at::Tensor& x, const S6Weights& ahead,
                     const S6Weights& back, const S6Sizes& sizes,
                     AfterScan after, const Pass& pass) {
  S6Both both;
  after.reversed = true;
  if (!pass.fused()) {
    both.ahead = RunS6(x, ahead, sizes, AfterScan(), pass);
    after.added = both.ahead.y;
    both.back = RunS6(x, back, sizes, after, pass);
    return both;
  }
  FusedS6 waits;
  SideBySide(
      x, [&] { waits = BeforeScan(x, back, sizes, /*reversed=*/true, pass); },
      [&] { both.ahead = RunS6(x, ahead, sizes, AfterScan(), pass); });
  after.added = both.ahead.y;
  both.back = Scan(std::move(waits), back, after, pass);
  return both;
}

S6Cost CostOfS6(const S6Sizes& sizes) {
  const int64_t inner = sizes.inner, rank = sizes.rank, state = sizes.state;
  S6Cost cost;
  cost.forward = 8 * inner + 3 * (rank + 2 * state);
  cost.gradient = (10 + sizes.conv_width) * inner + 4 * (rank + 2 * state);
  cost.backward = 16 * inner + 4 * (rank + 2 * state) +
                  (state + 1) * std::min<int64_t>(inner, 1024);
  cost.flops = 2.0 * inner * (2 * rank + 2 * state) +
               inner * (2.0 * sizes.conv_width + 8.0 * state + 20);
  cost.entry_flops = 2.0 * (state + sizes.conv_width) + 4;
  return cost;
}

}  // namespace limpid
