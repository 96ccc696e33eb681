// SPDX-License-Identifier: Apache-2.0
#include "server/models/layers.h"

#include <ATen/ATen.h>

#include <vector>

#include "server/models/kernel_ops.h"
#ifdef LIMPID_WITH_CUDA
#include "server/models/tf32_linear.h"
#endif

namespace limpid {
namespace {

at::Tensor RoundedInput(const at::Tensor& x, const Arithmetic& arithmetic) {
  if (!arithmetic.input_type) return x;
  const at::Tensor exact = x.detach();
  const at::Tensor rounded =
      exact.to(*arithmetic.input_type).to(x.scalar_type());
  if (!at::GradMode::is_enabled()) return rounded;
  // Not through the conversions: they would round gradients, too, and lose
  // those that are too small for float16.
  return x + (rounded - exact);
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight,
                   double epsilon, const Pass& pass) {
  // One kernel on GPUs only.
  if (pass.fused() && x.is_cuda()) {
    return at::rms_norm(x, {x.size(-1)}, weight, epsilon);
  }
  return x *
         pass.Factor(
             at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + epsilon)) *
         weight;
}

at::Tensor LayerNorm(const at::Tensor& x, const Affine& affine, double epsilon,
                     const Pass& pass) {
  // One kernel, which makes NaN of numbers above 1e19, whose squares overflow.
  // On CPUs, where a launch costs nothing, the steps below do not.
  if (pass.fused() && x.is_cuda()) {
    return at::layer_norm(x, {x.size(-1)}, affine.weight, affine.bias, epsilon);
  }
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

at::Tensor Project(const at::Tensor& input, const at::Tensor& weight,
                   const at::Tensor& bias, const Pass& pass) {
  const at::Tensor x = RoundedInput(input, pass.arithmetic());
#ifdef LIMPID_WITH_CUDA
  if (pass.arithmetic().tf32 && x.is_cuda() && x.scalar_type() == at::kFloat) {
    return Tf32Linear(x, weight, bias);
  }
#endif
  const auto optional =
      bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  if (x.dim() == 3 && !x.is_contiguous() && !at::GradMode::is_enabled()) {
    // Rows with gaps between them are fine for a product of matrices, but not
    // for a batch of those, which would copy them.
    return at::linear(x.flatten(0, 1), weight, optional)
        .view({x.size(0), x.size(1), weight.size(0)});
  }
  return at::linear(x, weight, optional);
}

at::Tensor Silu(const at::Tensor& x, const Pass& pass) {
  return pass.Factor(at::sigmoid(x)) * x;
}

at::Tensor SquaredRelu(const at::Tensor& x, const Pass& pass) {
  return pass.Factor(at::relu(x)) * x;
}

at::Tensor Shift(const at::Tensor& x, const Packing& packing) {
  const at::Tensor shifted =
      at::constant_pad_nd(x, {0, 0, 1, 0}).narrow(1, 0, x.size(1));
  if (!packing.packed()) return shifted;
  return shifted.index_fill_(1, packing.FirstPositions(x), 0);
}

at::Tensor Convolve(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& bias, const Packing& packing) {
  if (!at::GradMode::is_enabled()) {
    return CausalConv1d(x, weight, bias, packing);
  }
  TORCH_CHECK(!packing.packed());
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
  if (positions.size() == 1) return x.narrow(1, positions[0], 1);
  return x.index_select(1, at::tensor(positions, at::kLong).to(x.device()));
}

}  // namespace limpid
