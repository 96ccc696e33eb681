// SPDX-License-Identifier: Apache-2.0
//
// Products of matrices in TF32 on GPUs, whatever ATen is set to: its own switch
// is one for the whole process, and requests in float32 run beside these.
#pragma once

#include <ATen/core/Tensor.h>

namespace limpid {

// x weight^T + bias for float32 x [..., m], weight [n, m] and bias [n] or
// undefined: operands with 11 bits, sums in float32. Differentiable in x, in
// the same arithmetic.
at::Tensor Tf32Linear(const at::Tensor& x, const at::Tensor& weight,
                      const at::Tensor& bias);

}  // namespace limpid
