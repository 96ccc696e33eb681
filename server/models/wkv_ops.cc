// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "server/models/kernel_dispatch.h"
#include "server/models/kernel_ops.h"

namespace limpid {

WkvRun RunWkv(const at::Tensor& key, const at::Tensor& value,
              const at::Tensor& gate_input, const at::Tensor& decay,
              const at::Tensor& bonus, bool keeps_factors,
              const Packing& packing) {
  const auto make = [&] { return at::empty(key.sizes(), key.options()); };
  WkvRun run;
  run.output = make();
  FrozenRecurrence& factors = run.recurrence;
  if (keeps_factors) {
    factors.query = make().unsqueeze(-1);
    factors.key = make().unsqueeze(-1);
    factors.decay = make().unsqueeze(-1);
    factors.diagonal = make();
    run.gate = make();
  }
  Dispatch(key, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(key.is_contiguous() && value.is_contiguous() &&
                gate_input.is_contiguous());
    const auto pointer = [](const at::Tensor& tensor) {
      return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
    };
    kernels::Wkv<T> op;
    op.num_sequences = packing.CountOf(key);
    op.num_positions = key.size(1);
    op.num_channels = key.size(2);
    op.key = Data<T>(key);
    op.value = Data<T>(value);
    op.gate_input = Data<T>(gate_input);
    op.decay = Data<T>(decay);
    op.bonus = Data<T>(bonus);
    op.out = pointer(run.output);
    op.key_factor = pointer(factors.key);
    op.decay_factor = pointer(factors.decay);
    op.query = pointer(factors.query);
    op.diagonal = pointer(factors.diagonal);
    op.gate = pointer(run.gate);
    op.begins = Begins(packing, key);
    RunOp(key, op, 0, op.num_channels, kChannelGrain,
          [](auto& share, int64_t from, int64_t to) {
            share.channel_begin = from;
            share.channel_end = to;
          });
  });
  return run;
}

}  // namespace limpid
