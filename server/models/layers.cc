// SPDX-License-Identifier: Apache-2.0
#include "server/models/layers.h"

#include <ATen/ATen.h>

#include <vector>

#include "server/models/kernel_ops.h"

namespace limpid {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight,
                   double epsilon, const Pass& pass) {
  return x *
         pass.Factor(
             at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + epsilon)) *
         weight;
}

at::Tensor LayerNorm(const at::Tensor& x, const Affine& affine, double epsilon,
                     const Pass& pass) {
  const at::Tensor centred = x - x.mean(-1, /*keepdim=*/true);
  const at::Tensor scale = pass.Factor(
      at::rsqrt(centred.square().mean(-1, /*keepdim=*/true) + epsilon));
  return centred * scale * affine.weight + affine.bias;
}

Affine TakeAffine(WeightReader& reader, const std::vector<std::string>& names,
                  int64_t size, bool has_bias) {
  std::vector<std::string> weights, biases;
  for (const std::string& name : names) {
    weights.push_back(name + ".weight");
    biases.push_back(name + ".bias");
  }
  const at::Tensor weight = reader.Take(weights, {size});
  if (has_bias) return {weight, reader.Take(biases, {size})};
  return {weight, weight.defined() ? reader.Keep(at::zeros_like(weight))
                                   : at::Tensor()};
}

at::Tensor Project(const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& bias) {
  return at::linear(
      x, weight,
      bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
}

at::Tensor Silu(const at::Tensor& x, const Pass& pass) {
  return pass.Factor(at::sigmoid(x)) * x;
}

at::Tensor SquaredRelu(const at::Tensor& x, const Pass& pass) {
  return pass.Factor(at::relu(x)) * x;
}

at::Tensor Shift(const at::Tensor& x) {
  return at::constant_pad_nd(x, {0, 0, 1, 0}).narrow(1, 0, x.size(1));
}

at::Tensor Convolve(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& bias) {
  if (!at::GradMode::is_enabled()) {
    std::vector<at::Tensor> out;
    for (int64_t i = 0; i < x.size(0); ++i) {
      out.push_back(CausalConv1d(x[i], weight, bias));
    }
    return at::stack(out);
  }
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

at::Tensor Rotate(const at::Tensor& x, int64_t size, double base) {
  const int64_t half = size / 2;
  if (half == 0) return x;
  // Angles in double precision: positions are large, digits few.
  const auto exact = x.options().dtype(at::kDouble);
  const at::Tensor angles =
      at::arange(x.size(2), exact).unsqueeze(1) *
      at::pow(base, at::arange(half, exact) * (-2.0 / size));
  const at::Tensor cosine = angles.cos().to(x.scalar_type());
  const at::Tensor sine = angles.sin().to(x.scalar_type());
  const at::Tensor a = x.narrow(-1, 0, half);
  const at::Tensor b = x.narrow(-1, half, half);
  return at::cat({a * cosine - b * sine, b * cosine + a * sine,
                  x.narrow(-1, 2 * half, x.size(-1) - 2 * half)},
                 -1);
}

at::Tensor TakePositions(const at::Tensor& x,
                         const std::vector<int64_t>& positions) {
  if (positions.empty()) return x;
  return x.index_select(1, at::tensor(positions, at::kLong).to(x.device()));
}

}  // namespace limpid
