// SPDX-License-Identifier: Apache-2.0
#include "server/models/layers.h"

#include <ATen/ATen.h>

#include <vector>

namespace limpid {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight,
                   double epsilon) {
  return x * at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + epsilon) *
         weight;
}

at::Tensor DifferentiableConv1d(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias) {
  const int64_t length = x.size(1), width = weight.size(1);
  const at::Tensor padded = at::constant_pad_nd(x, {0, 0, width - 1, 0});
  at::Tensor out;
  for (int64_t tap = 0; tap < width; ++tap) {
    const at::Tensor term =
        padded.narrow(1, tap, length) * weight.select(1, tap);
    out = out.defined() ? out + term : term;
  }
  return bias.defined() ? out + bias : out;
}

at::Tensor TakePositions(const at::Tensor& x,
                         const std::vector<int64_t>& positions) {
  if (positions.empty()) return x;
  return x.index_select(
      1, at::tensor(positions, at::kLong).to(x.device()));
}

}  // namespace limpid
