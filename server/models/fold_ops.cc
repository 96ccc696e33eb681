// SPDX-License-Identifier: Apache-2.0
//
// S6 attention that is folded while it is made.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <mutex>

#include "server/kernels/rows.h"
#include "server/models/fold_on_gpu.h"
#include "server/models/frozen_ssm.h"
#include "server/models/kernel_ops.h"
#include "server/models/side_by_side.h"

namespace limpid {
namespace {

// Rows that one thread takes at a time, by the length alone, lest results
// depend on the number of threads. Each time costs as much as three rows.
int64_t RowsOfShare(int64_t length) { return length <= 512 ? 64 : 128; }

// Shares in an order in which neighbours together have about the same work:
// later rows are longer.
int64_t ShareAt(int64_t place, int64_t num_shares) {
  return place % 2 == 0 ? place / 2 : num_shares - 1 - place / 2;
}

// Channels between two looks at the cancel token: some 50 ms of work.
int64_t ChannelsOfPart(int64_t rows, int64_t length, int64_t num_states) {
  constexpr int64_t kGroup = 16;
  const int64_t per_channel = rows * length * (num_states + 4);
  return std::max(kGroup, (int64_t{1} << 28) / per_channel / kGroup * kGroup);
}

template <typename T>
void FoldShare(const kernels::SsmAttentionFold<T>& whole, int64_t row_begin,
               const CancelToken* cancel) {
  const kernels::SelectiveSsm<T>& ssm = whole.attention.ssm;
  const int64_t length = ssm.num_positions, channels = ssm.num_channels;
  kernels::SsmAttentionFold<T> op = whole;
  op.attention.row_begin = row_begin;
  op.attention.row_end = std::min(length, row_begin + RowsOfShare(length));
  op.accumulator += row_begin * length;
  if (op.product != nullptr) op.product += row_begin * channels;
  const int64_t step =
      ChannelsOfPart(op.attention.row_end - row_begin, length, ssm.state_size);
  for (int64_t channel = 0; channel < channels; channel += step) {
    if (cancel != nullptr && !cancel->Check().ok()) return;
    op.attention.channel_begin = channel;
    op.attention.channel_end = std::min(channels, channel + step);
    OrThrow(kernels::cpu::Run(op));
  }
}

at::Tensor SequenceOf(const at::Tensor& tensor, int64_t index) {
  return tensor.defined() ? tensor.select(0, index) : tensor;
}

// All but what is folded. With `turned` the recurrence reads backwards, and row
// scale and value, which the op may have already, do not.
template <typename T>
void SetInputs(const FrozenSsm& ssm, const FrozenFactors& factors,
               const at::Tensor& value, bool turned,
               kernels::SsmAttentionFold<T>& op) {
  op.attention = Attention<T>(ssm, factors);
  op.attention.channel_end = op.attention.ssm.num_channels;
  op.attention.row_end = op.attention.ssm.num_positions;
  op.num_sequences = ssm.delta.dim() == 3 ? ssm.delta.size(0) : 1;
  op.sequence_strides = {SequenceStride(ssm.delta),
                         SequenceStride(ssm.b),
                         SequenceStride(ssm.c),
                         SequenceStride(factors.source_scale),
                         SequenceStride(factors.row_scale),
                         SequenceStride(value)};
  const auto turn = [&](const T*& data, int64_t& stride) {
    if (!turned || data == nullptr) return;
    data += (op.attention.ssm.num_positions - 1) * stride;
    stride = -stride;
  };
  turn(op.attention.row_scale, op.attention.row_stride);
  turn(op.value, op.value_stride);
}

// Of one sequence.
void FoldOnCpu(const FrozenSsm& ssm, const FrozenFactors& factors,
               const AttentionFold& fold, bool turned) {
  Dispatch(fold.matrix, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(fold.matrix.is_contiguous());
    kernels::SsmAttentionFold<T> op;
    op.fold = fold.fold;
    op.weight = Data<T>(fold.weight);
    op.accumulator = fold.matrix.mutable_data_ptr<T>();
    if (fold.product.defined()) {
      TORCH_CHECK(fold.product.is_contiguous());
      op.value = Data<T>(fold.value);
      op.value_stride = RowStride(fold.value);
      op.product = fold.product.mutable_data_ptr<T>();
    }
    SetInputs(ssm, factors, fold.value, turned, op);
    const int64_t rows = RowsOfShare(op.attention.ssm.num_positions);
    const int64_t shares = (op.attention.ssm.num_positions + rows - 1) / rows;
    at::parallel_for(0, shares, 1, [&](int64_t from, int64_t to) {
      for (int64_t place = from; place < to; ++place) {
        FoldShare(op, ShareAt(place, shares) * rows, fold.cancel);
      }
    });
  });
}

// Channels in blocks whose folds are joined in their order, so that the result
// does not depend on the number of threads.
template <typename T>
void FoldRowsOnCpu(const kernels::SsmRowsFold<T>& op,
                   const AttentionFold& fold) {
  constexpr int64_t kBlock = 4 * kChannelGrain;
  const int64_t channels = op.attention.ssm.num_channels;
  const int64_t blocks = (channels + kBlock - 1) / kBlock;
  const bool extreme = fold.fold == kernels::ChannelFold::kMax ||
                       fold.fold == kernels::ChannelFold::kMin;
  const at::Tensor parts =
      at::full({blocks, fold.matrix.size(0), fold.matrix.size(1)},
               EmptyFold(fold.fold), fold.matrix.options());
  T* const data = parts.mutable_data_ptr<T>();
  at::parallel_for(0, blocks, 1, [&](int64_t from, int64_t to) {
    for (int64_t block = from; block < to; ++block) {
      kernels::SsmRowsFold<T> share = op;
      share.attention.channel_begin = block * kBlock;
      share.attention.channel_end = std::min(channels, (block + 1) * kBlock);
      share.accumulator = data + block * fold.matrix.numel();
      OrThrow(kernels::cpu::Run(share));
    }
  });
  at::Tensor matrix = fold.matrix;
  FoldChannels(extreme ? fold.fold : kernels::ChannelFold::kSum, parts,
               at::Tensor(), matrix);
}

// FoldSsmAttention, of a direction that is `turned` as SetInputs has it.
bool FoldDirection(const FrozenSsm& ssm, const FrozenFactors& factors,
                   const AttentionFold& fold, bool turned) {
  if (!fold.matrix.is_cpu()) {
    return FoldOnGpu<kernels::SsmAttentionFold<float>>(fold, [&](auto& op) {
      SetInputs(ssm, factors, fold.value, turned, op);
      op.conv_bias = Data<float>(factors.conv_bias);
    });
  }
  if (fold.matrix.dim() == 2) {
    FoldOnCpu(ssm, factors, fold, turned);
    return true;
  }
  for (int64_t i = 0; i < fold.matrix.size(0); ++i) {
    FoldOnCpu(ssm.Sequence(i), factors.Sequence(i), fold.Sequence(i), turned);
  }
  return true;
}

}  // namespace

FrozenSsm FrozenSsm::Sequence(int64_t index) const {
  return {delta[index], a, b[index], c[index], skip};
}

FrozenFactors FrozenFactors::Sequence(int64_t index) const {
  return {SequenceOf(source_scale, index), conv_weight,
          SequenceOf(row_scale, index), conv_bias};
}

AttentionFold AttentionFold::Sequence(int64_t index) const {
  AttentionFold one = *this;
  for (at::Tensor* tensor : {&one.matrix, &one.value, &one.product}) {
    *tensor = SequenceOf(*tensor, index);
  }
  return one;
}

bool FoldSsmAttention(const FrozenSsm& ssm, const FrozenFactors& factors,
                      const AttentionFold& fold) {
  return FoldDirection(ssm, factors, fold, /*turned=*/false);
}

bool FoldBothDirections(const FrozenSsm& ahead,
                        const FrozenFactors& ahead_factors,
                        const FrozenSsm& back,
                        const FrozenFactors& back_factors,
                        const AttentionFold& fold) {
  std::vector<int64_t> sizes = fold.matrix.sizes().vec();
  sizes.insert(sizes.begin(), 2);
  const at::Tensor matrices =
      at::full(sizes, EmptyFold(fold.fold), fold.matrix.options());
  AttentionFold of_ahead = fold, of_back = fold;
  of_ahead.matrix = matrices[0];
  of_back.matrix = matrices[1];
  if (fold.product.defined()) {
    of_back.product = at::empty_like(fold.product);
  }
  bool ahead_folds = false, back_folds = false;
  SideBySide(
      fold.matrix,
      [&] {
        back_folds =
            FoldDirection(back, back_factors, of_back, /*turned=*/true);
      },
      [&] {
        ahead_folds =
            FoldDirection(ahead, ahead_factors, of_ahead, /*turned=*/false);
      });
  if (!ahead_folds || !back_folds) return false;
  Dispatch(fold.matrix, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(fold.matrix.is_contiguous());
    kernels::JoinDirections<T> op;
    SetInputs(ahead, ahead_factors, at::Tensor(), /*turned=*/false, op.ahead);
    SetInputs(back, back_factors, at::Tensor(), /*turned=*/true, op.back);
    op.ahead.fold = op.back.fold = fold.fold;
    op.ahead.weight = op.back.weight = Data<T>(fold.weight);
    op.ahead.accumulator = of_ahead.matrix.mutable_data_ptr<T>();
    op.back.accumulator = of_back.matrix.mutable_data_ptr<T>();
    op.out = fold.matrix.mutable_data_ptr<T>();
    const int64_t rows = fold.matrix.numel() / fold.matrix.size(-1);
    RunOp(fold.matrix, op, 0, rows, /*grain=*/16,
          [](auto& share, int64_t from, int64_t to) {
            share.row_begin = from;
            share.row_end = to;
          });
  });
  if (fold.product.defined()) fold.product.add_(of_back.product.flip(-2));
  return true;
}

bool FoldSsmRows(const FrozenSsm& ssm, const FrozenFactors& factors,
                 int64_t row_begin, const AttentionFold& fold) {
  bool taken = true;
  Dispatch(fold.matrix, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(fold.matrix.is_contiguous());
    kernels::SsmRowsFold<T> op;
    op.attention = Attention<T>(ssm, factors);
    op.attention.channel_end = op.attention.ssm.num_channels;
    op.attention.row_begin = row_begin;
    op.attention.row_end = row_begin + fold.matrix.size(0);
    op.conv_bias = Data<T>(factors.conv_bias);
    op.fold = fold.fold;
    op.weight = Data<T>(fold.weight);
    op.accumulator = fold.matrix.mutable_data_ptr<T>();
    if (fold.product.defined()) {
      TORCH_CHECK(fold.product.is_contiguous());
      op.value = Data<T>(fold.value);
      op.value_stride = RowStride(fold.value);
      op.product = fold.product.mutable_data_ptr<T>();
    }
    if (fold.matrix.is_cpu()) {
      FoldRowsOnCpu(op, fold);
      return;
    }
#ifdef LIMPID_WITH_CUDA
    taken = kernels::cuda::CanFoldRows(op);
    if (!taken) return;
    const at::Tensor scratch =
        at::empty({kernels::cuda::RowsFoldScratch(op)}, fold.matrix.options());
    op.scratch = scratch.mutable_data_ptr<T>();
    RunOnGpu(fold.matrix, op);
#endif
  });
  return taken;
}

at::Tensor RowErrors(const at::Tensor& product, const at::Tensor& bias,
                     const at::Tensor& output) {
  // Rows of all sequences one after the other.
  const auto rows = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.flatten(0, -2) : tensor;
  };
  const at::Tensor products = rows(product), biases = rows(bias),
                   outputs = rows(output);
  at::Tensor error =
      at::empty(product.sizes().slice(0, product.dim() - 1), product.options());
  Dispatch(product, [&](auto zero) {
    using T = decltype(zero);
    kernels::RowErrors<T> op;
    op.num_rows = products.size(0);
    op.num_channels = products.size(1);
    op.product = Data<T>(products);
    op.product_stride = RowStride(products);
    op.bias = Data<T>(biases);
    op.bias_stride = RowStride(biases);
    op.output = Data<T>(outputs);
    op.output_stride = RowStride(outputs);
    op.error = error.mutable_data_ptr<T>();
    RunOp(product, op, 0, 1, 1, [](auto&, int64_t, int64_t) {});
  });
  return error;
}

}  // namespace limpid
