// SPDX-License-Identifier: Apache-2.0
//
// Small pieces that several architectures are made of. All differentiable, and
// linear in their argument where the pass is frozen.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "server/models/pass.h"
#include "server/models/weights.h"

namespace limpid {

// x / sqrt(mean(x^2) + epsilon) * weight over the last dimension.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight,
                   double epsilon, const Pass& pass);

// Weight and bias of a norm, [n] each.
struct Affine {
  at::Tensor weight, bias;
};
// (x - mean) / sqrt(var + epsilon) * weight + bias over the last dimension,
// with the biased variance.
at::Tensor LayerNorm(const at::Tensor& x, const Affine& affine, double epsilon,
                     const Pass& pass);
// NAME.weight and NAME.bias for the first of `names` that is there; without a
// bias it is zero.
Affine TakeAffine(WeightReader& reader, const std::vector<std::string>& names,
                  int64_t size, bool has_bias = true);

// x weight^T + bias in the arithmetic of the pass; bias may be undefined. Where
// x is rounded, gradients pass as if it were not.
at::Tensor Project(const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& bias, const Pass& pass);
inline at::Tensor Project(const at::Tensor& x, const at::Tensor& weight,
                          const Pass& pass) {
  return Project(x, weight, at::Tensor(), pass);
}

// x sigmoid(x), with the ratio as a factor.
at::Tensor Silu(const at::Tensor& x, const Pass& pass);
// relu(x)^2, with relu(x) as a factor.
at::Tensor SquaredRelu(const at::Tensor& x, const Pass& pass);

// x one position later, zeros at position 0; x is [B, L, E]. Packed: in
// inference mode only, as all that follow.
at::Tensor Shift(const at::Tensor& x, const Packing& packing);

// Causal depthwise convolution of x [B, L, D] with weight [D, K] and bias [D]
// or undefined: a kernel, or where gradients are wanted a sum of shifted
// products.
at::Tensor Convolve(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& bias, const Packing& packing);

// Heads x [B, H, L, n], whose first `size` dimensions are turned by their
// position (arXiv:2104.09864): i and i + size / 2 by position base^(-2 i /
// size) radians. `size` is even.
at::Tensor Rotate(const at::Tensor& x, int64_t size, double base);

// Rows of x [B, L, E] at positions, [B, P, E]; all of them if empty.
at::Tensor TakePositions(const at::Tensor& x,
                         const std::vector<int64_t>& positions);

}  // namespace limpid
