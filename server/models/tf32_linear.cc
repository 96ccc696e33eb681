// SPDX-License-Identifier: Apache-2.0
#include "server/models/tf32_linear.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace limpid {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// a b for a [..., k] and b [k, n], or b^T contiguous.
at::Tensor Tf32Product(const at::Tensor& a, const at::Tensor& b) {
  const c10::cuda::CUDAGuard guard(a.device());
  const int64_t inner = b.size(0), columns = b.size(1);
  at::Tensor left = a.reshape({-1, inner});
  if (left.stride(1) != 1) left = left.contiguous();
  const bool transposed = b.stride(0) == 1;
  const at::Tensor right = transposed || b.stride(1) == 1 ? b : b.contiguous();
  at::Tensor out = at::empty({left.size(0), columns}, left.options());
  // cuBLAS stores columns one after the other, so it is asked for out^T =
  // b^T a^T. The stride of a single row may be anything.
  const float one = 1, zero = 0;
  const cublasStatus_t status = cublasGemmEx(
      at::cuda::getCurrentCUDABlasHandle(),
      transposed ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_N,
      static_cast<int>(columns), static_cast<int>(left.size(0)),
      static_cast<int>(inner), &one, right.const_data_ptr<float>(), CUDA_R_32F,
      static_cast<int>(transposed ? std::max(right.stride(1), inner)
                                  : std::max(right.stride(0), columns)),
      left.const_data_ptr<float>(), CUDA_R_32F,
      static_cast<int>(std::max(left.stride(0), inner)), &zero,
      out.mutable_data_ptr<float>(), CUDA_R_32F, static_cast<int>(columns),
      CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_GEMM_DEFAULT);
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS,
              "cublasGemmEx: ", cublasGetStatusString(status));
  std::vector<int64_t> sizes = a.sizes().vec();
  sizes.back() = columns;
  return out.view(sizes);
}

at::Tensor LinearInTf32(const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias) {
  const at::Tensor product = Tf32Product(x, weight.t());
  return bias.defined() ? product.add_(bias) : product;
}

class Tf32LinearFunction
    : public torch::autograd::Function<Tf32LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    context->save_for_backward({weight});
    return LinearInTf32(x, weight, bias.value_or(at::Tensor()));
  }
  static variable_list backward(AutogradContext* context,
                                variable_list gradients) {
    const at::Tensor weight = context->get_saved_variables()[0];
    return {Tf32Product(gradients[0], weight), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor Tf32Linear(const at::Tensor& x, const at::Tensor& weight,
                      const at::Tensor& bias) {
  if (!at::GradMode::is_enabled()) return LinearInTf32(x, weight, bias);
  return Tf32LinearFunction::apply(
      x, weight,
      bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
}

}  // namespace limpid
