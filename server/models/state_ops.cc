// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "server/models/fold_on_gpu.h"
#include "server/models/kernel_dispatch.h"
#include "server/models/kernel_ops.h"

namespace limpid {
namespace {

template <typename T>
kernels::HeadOperand<T> Operand(const at::Tensor& tensor) {
  kernels::HeadOperand<T> out;
  if (!tensor.defined()) return out;
  TORCH_CHECK(tensor.dim() == 4, "expected [B, L, H, n]");
  out.data = Data<T>(tensor);
  if (tensor.size(0) > 1) out.sequence_stride = tensor.stride(0);
  out.position_stride = tensor.stride(1);
  out.head_stride = tensor.stride(2);
  out.element_stride = tensor.stride(3);
  return out;
}

template <typename T>
kernels::StateRecurrence<T> Recurrence(const FrozenRecurrence& recurrence) {
  const at::Tensor& key = recurrence.key;
  for (const at::Tensor& other : {recurrence.query, recurrence.decay,
                                  recurrence.left, recurrence.right}) {
    TORCH_CHECK(!other.defined() || other.sizes() == key.sizes());
  }
  kernels::StateRecurrence<T> out;
  out.num_sequences = key.size(0);
  out.num_positions = key.size(1);
  out.num_heads = key.size(2);
  out.key_size = key.size(3);
  out.query = Operand<T>(recurrence.query);
  out.key = Operand<T>(key);
  out.decay = Operand<T>(recurrence.decay);
  out.left = Operand<T>(recurrence.left);
  out.right = Operand<T>(recurrence.right);
  if (recurrence.diagonal.defined()) {
    out.diagonal = Operand<T>(recurrence.diagonal.unsqueeze(-1));
  }
  return out;
}

// Heads that one thread takes at least: small ones go through a register
// together.
int64_t HeadGrain(int64_t key_size, int64_t value_size) {
  return std::max<int64_t>(1, 64 / (key_size * value_size));
}

at::Tensor ForwardScan(const FrozenRecurrence& recurrence,
                       const at::Tensor& value, const Packing& packing) {
  at::Tensor out = at::empty(value.sizes(), value.options());
  Dispatch(value, [&](auto zero) {
    using T = decltype(zero);
    kernels::StateScan<T> op;
    op.recurrence = Recurrence<T>(recurrence);
    op.recurrence.num_sequences = packing.CountOf(value);
    op.begins = Begins(packing, value);
    op.value_size = value.size(3);
    op.value = Operand<T>(value);
    op.out = out.mutable_data_ptr<T>();
    RunOp(value, op, 0, op.recurrence.num_sequences * value.size(2),
          HeadGrain(op.recurrence.key_size, op.value_size),
          [](auto& share, int64_t from, int64_t to) {
            share.head_begin = from;
            share.head_end = to;
          });
  });
  return out;
}

// Inputs of the scan in the order of StateScanFunction's arguments.
enum Input { kQuery, kKey, kDecay, kLeft, kRight, kDiagonal, kValue, kInputs };

std::vector<at::Tensor> BackwardScan(const FrozenRecurrence& recurrence,
                                     const at::Tensor& value,
                                     const at::Tensor& dout,
                                     const std::vector<bool>& wanted) {
  std::vector<at::Tensor> gradients(kInputs);
  const auto make = [&](Input input, const at::Tensor& like) {
    if (wanted[input] && like.defined()) {
      gradients[input] = at::empty(like.sizes(), value.options());
    }
  };
  make(kQuery, recurrence.query);
  make(kKey, recurrence.key);
  make(kDecay, recurrence.decay);
  make(kLeft, recurrence.left);
  make(kRight, recurrence.right);
  make(kDiagonal, recurrence.diagonal);
  make(kValue, value);
  Dispatch(value, [&](auto zero) {
    using T = decltype(zero);
    const auto pointer = [&](Input input) {
      return gradients[input].defined() ? gradients[input].mutable_data_ptr<T>()
                                        : nullptr;
    };
    kernels::StateScanBackward<T> op;
    op.recurrence = Recurrence<T>(recurrence);
    op.value_size = value.size(3);
    op.value = Operand<T>(value);
    op.dout = Data<T>(dout);
    op.dquery = pointer(kQuery);
    op.dkey = pointer(kKey);
    op.ddecay = pointer(kDecay);
    op.dleft = pointer(kLeft);
    op.dright = pointer(kRight);
    op.ddiagonal = pointer(kDiagonal);
    op.dvalue = pointer(kValue);
    const int64_t heads = value.size(0) * value.size(2);
    if (value.is_cpu()) {
      std::mutex mutex;
      absl::Status first;
      at::parallel_for(
          0, heads, HeadGrain(op.recurrence.key_size, op.value_size),
          [&](int64_t from, int64_t to) {
            at::Tensor scratch =
                at::empty({kernels::cpu::StateScanBackwardScratch(
                              op.recurrence, op.value_size, to - from)},
                          value.options());
            auto share = op;
            share.head_begin = from;
            share.head_end = to;
            share.scratch = scratch.mutable_data_ptr<T>();
            absl::Status status = kernels::cpu::Run(share);
            if (!status.ok()) {
              std::lock_guard<std::mutex> lock(mutex);
              first = status;
            }
          });
      OrThrow(first);
      return;
    }
#ifdef LIMPID_WITH_CUDA
    at::Tensor scratch = at::empty({kernels::cuda::StateScanBackwardScratch(
                                       op.recurrence, op.value_size, heads)},
                                   value.options());
    op.scratch = scratch.mutable_data_ptr<T>();
    RunOp(value, op, 0, heads, 1, [](auto& share, int64_t from, int64_t to) {
      share.head_begin = from;
      share.head_end = to;
    });
#endif
  });
  return gradients;
}

class StateScanFunction : public torch::autograd::Function<StateScanFunction> {
 public:
  using Optional = std::optional<at::Tensor>;

  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& decay, const Optional& left,
                            const Optional& right, const Optional& diagonal,
                            const at::Tensor& value) {
    const FrozenRecurrence recurrence{query,
                                      key,
                                      decay,
                                      left.value_or(at::Tensor()),
                                      right.value_or(at::Tensor()),
                                      diagonal.value_or(at::Tensor())};
    context->save_for_backward({query, key, decay, recurrence.left,
                                recurrence.right, recurrence.diagonal, value});
    return ForwardScan(recurrence, value, Packing());
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    // Only tensors that are there have an edge of the graph.
    std::vector<bool> wanted;
    size_t edge = 0;
    for (const at::Tensor& input : saved) {
      wanted.push_back(input.defined() && context->needs_input_grad(edge++));
    }
    return BackwardScan({saved[kQuery], saved[kKey], saved[kDecay],
                         saved[kLeft], saved[kRight], saved[kDiagonal]},
                        saved[kValue], gradients[0].contiguous(), wanted);
  }
};

}  // namespace

FrozenRecurrence FrozenRecurrence::Sequences(const Packing& packing,
                                             int64_t first,
                                             int64_t count) const {
  const auto part = [&](const at::Tensor& tensor) {
    return packing.Sequences(tensor, first, count);
  };
  return {part(query), part(key),   part(decay),
          part(left),  part(right), part(diagonal)};
}

at::Tensor StateScan(const FrozenRecurrence& recurrence,
                     const at::Tensor& value, const Packing& packing) {
  if (!at::GradMode::is_enabled()) {
    return ForwardScan(recurrence, value, packing);
  }
  TORCH_CHECK(!packing.packed());
  const auto optional = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
  };
  return StateScanFunction::apply(recurrence.query, recurrence.key,
                                  recurrence.decay, optional(recurrence.left),
                                  optional(recurrence.right),
                                  optional(recurrence.diagonal), value);
}

void StateAttention(const FrozenRecurrence& recurrence, int64_t head_begin,
                    int64_t row_begin, at::Tensor& out) {
  Dispatch(out, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(out.is_contiguous());
    kernels::StateAttention<T> op;
    op.recurrence = Recurrence<T>(recurrence);
    op.row_begin = row_begin;
    op.row_end = row_begin + out.size(1);
    T* const data = out.mutable_data_ptr<T>();
    const int64_t head_entries = out.size(1) * out.size(2);
    RunOp(out, op, head_begin, head_begin + out.size(0),
          HeadGrain(op.recurrence.key_size, out.size(1)),
          [&](auto& share, int64_t from, int64_t to) {
            share.head_begin = from;
            share.head_end = to;
            share.out = data + (from - head_begin) * head_entries;
          });
  });
}

bool FoldScalarAttention(const FrozenRecurrence& recurrence,
                         const FrozenFactors& factors,
                         const AttentionFold& fold) {
  return FoldOnGpu<kernels::ScalarAttentionFold<float>>(fold, [&](auto& op) {
    op.recurrence = Recurrence<float>(recurrence);
    SetFactors<float>(factors, op);
  });
}

bool FoldHeads(const at::Tensor& heads, int64_t channels_per_head,
               const at::Tensor& skip, const FrozenFactors& factors,
               int64_t row_begin, const AttentionFold& fold) {
  return FoldOnGpu<kernels::HeadsFold<float>>(fold, [&](auto& op) {
    TORCH_CHECK(heads.is_contiguous());
    kernels::ExpandHeads<float>& expand = op.expand;
    expand.num_positions = heads.size(2);
    expand.channels_per_head = channels_per_head;
    expand.heads = Data<float>(heads);
    expand.skip = Data<float>(skip);
    SetFactors<float>(factors, expand);
    expand.channel_end = heads.size(0) * channels_per_head;
    expand.row_begin = row_begin;
    expand.row_end = row_begin + heads.size(1);
  });
}

void ExpandHeads(const at::Tensor& heads, int64_t head_begin,
                 int64_t channels_per_head, const at::Tensor& skip,
                 const FrozenFactors& factors, int64_t channel_begin,
                 int64_t row_begin, at::Tensor& out) {
  Dispatch(out, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(out.is_contiguous() && heads.is_contiguous());
    kernels::ExpandHeads<T> op;
    op.num_positions = out.size(2);
    op.channels_per_head = channels_per_head;
    op.heads = Data<T>(heads);
    op.head_begin = head_begin;
    op.skip = Data<T>(skip);
    SetFactors<T>(factors, op);
    op.row_begin = row_begin;
    op.row_end = row_begin + out.size(1);
    T* const data = out.mutable_data_ptr<T>();
    const int64_t channel_entries = out.size(1) * out.size(2);
    const int64_t grain = out.size(1) > 8 ? 1 : kChannelGrain;
    RunOp(out, op, channel_begin, channel_begin + out.size(0), grain,
          [&](auto& share, int64_t from, int64_t to) {
            share.channel_begin = from;
            share.channel_end = to;
            share.out = data + (from - channel_begin) * channel_entries;
          });
  });
}

}  // namespace limpid
