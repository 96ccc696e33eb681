// SPDX-License-Identifier: Apache-2.0
//
// Small pieces that several architectures are made of; all differentiable.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace limpid {

// x / sqrt(mean(x^2) + epsilon) * weight over the last dimension.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight,
                   double epsilon);

// Causal depthwise convolution of x [B, L, D] with weight [D, K] and bias [D]
// or undefined, as a sum of shifted products.
at::Tensor DifferentiableConv1d(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias);

// Rows of x [B, L, E] at positions, [B, P, E]; all of them if empty.
at::Tensor TakePositions(const at::Tensor& x,
                         const std::vector<int64_t>& positions);

}  // namespace limpid
