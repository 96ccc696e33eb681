// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/rollout_product.h"

#include <ATen/ATen.h>

namespace limpid {

void RolloutProduct::Multiply(const at::Tensor& step) {
  const at::Tensor square = step.narrow(1, 0, step.size(0));
  product_ = product_.defined() ? at::mm(square, product_) : square.clone();
}

void RolloutProduct::MultiplyWithResidual(const at::Tensor& attention,
                                          double weight) {
  at::Tensor step = attention.narrow(1, 0, attention.size(0)).clone();
  step.diagonal().add_(weight);
  step.div_(attention.sum(1, /*keepdim=*/true).add_(weight));
  Multiply(step);
}

at::Tensor RolloutProduct::Row(int64_t position, const at::Tensor& like) const {
  at::Tensor row = at::zeros_like(like);
  if (product_.defined()) {
    row.narrow(0, 0, product_.size(1)).copy_(product_.select(0, position));
  } else {
    row[position] = 1;
  }
  return row;
}

}  // namespace limpid
