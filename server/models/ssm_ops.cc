// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <limits>

#include "server/models/frozen_ssm.h"
#include "server/models/kernel_ops.h"

namespace limpid {
namespace {

// Into what is defined of `out`.
void RunConvolution(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& bias, bool reversed,
                    const Packing& packing, const Convolved& out) {
  const at::Tensor rows = x.flatten(0, 1);
  Dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(weight.is_contiguous());
    const auto pointer = [](const at::Tensor& tensor) {
      return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
    };
    kernels::CausalConv1d<T> op;
    op.num_sequences = packing.CountOf(x);
    op.num_positions = x.size(1);
    op.width = weight.size(1);
    op.weight = Data<T>(weight);
    op.bias = Data<T>(bias);
    op.x = Data<T>(rows);
    op.x_stride = RowStride(rows);
    op.reversed = reversed;
    op.out = pointer(out.conv);
    op.out_stride = x.size(2);
    op.ratio = pointer(out.ratio);
    op.activated = pointer(out.activated);
    op.begins = Begins(packing, x);
    RunOp(x, op, 0, x.size(2), kChannelGrain,
          [](auto& share, int64_t from, int64_t to) {
            const auto move = [from](auto*& data) {
              if (data != nullptr) data += from;
            };
            share.num_channels = to - from;
            share.weight += from * share.width;
            move(share.bias);
            move(share.x);
            move(share.out);
            move(share.ratio);
            move(share.activated);
          });
  });
}

}  // namespace

at::Tensor CausalConv1d(const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias, const Packing& packing) {
  Convolved out;
  out.conv = at::empty(x.sizes(), x.options());
  RunConvolution(x, weight, bias, /*reversed=*/false, packing, out);
  return out.conv;
}

Convolved ConvolveAndActivate(const at::Tensor& x, const at::Tensor& weight,
                              const at::Tensor& bias, bool reversed,
                              bool keeps_factors, const Packing& packing) {
  Convolved out;
  out.activated = at::empty(x.sizes(), x.options());
  if (keeps_factors) {
    out.conv = at::empty(x.sizes(), x.options());
    out.ratio = at::empty(x.sizes(), x.options());
  }
  RunConvolution(x, weight, bias, reversed, packing, out);
  return out;
}

void SsmAttention(const FrozenSsm& ssm, const FrozenFactors& factors,
                  int64_t channel_begin, int64_t row_begin, at::Tensor& out) {
  Dispatch(out, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(out.is_contiguous());
    kernels::SsmAttention<T> op = Attention<T>(ssm, factors);
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

double EmptyFold(kernels::ChannelFold fold) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (fold == kernels::ChannelFold::kMax) return -kInfinity;
  return fold == kernels::ChannelFold::kMin ? kInfinity : 0;
}

void FinishFold(FoldFinish finish, int64_t num_channels, at::Tensor& matrix) {
  if (finish == FoldFinish::kNone) return;
  matrix.div_(num_channels);
  if (finish == FoldFinish::kPositiveMean) matrix.clamp_min_(0);
  if (finish == FoldFinish::kRootMean) matrix.sqrt_();
}

at::Tensor ChannelWeights(const at::Tensor& projection) {
  const at::Tensor norms = projection.norm(2, {0});
  return norms / norms.sum();
}

int64_t FoldScratchBytes(int64_t num_channels, int64_t length) {
#ifdef LIMPID_WITH_CUDA
  // That of S6, whose factors are the largest.
  kernels::SsmAttentionFold<float> op;
  op.attention.ssm.num_positions = length;
  op.attention.ssm.num_channels = num_channels;
  op.attention.channel_end = num_channels;
  float any = 0;
  op.product = &any;  // wanted
  return kernels::cuda::FoldScratchBytes(op);
#else
  return 0;
#endif
}

void FoldChannels(kernels::ChannelFold fold, const at::Tensor& slab,
                  const at::Tensor& weight, at::Tensor& accumulator) {
  Dispatch(slab, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(slab.is_contiguous() && accumulator.is_contiguous());
    kernels::FoldChannels<T> op;
    op.fold = fold;
    op.num_channels = slab.size(0);
    op.num_entries = accumulator.numel();
    op.slab = Data<T>(slab);
    op.weight = Data<T>(weight);
    op.accumulator = accumulator.mutable_data_ptr<T>();
    op.slab_stride = op.num_entries;
    constexpr int64_t kGrain = 4096;
    RunOp(slab, op, 0, op.num_entries, kGrain,
          [](auto& share, int64_t from, int64_t to) {
            share.num_entries = to - from;
            share.slab += from;
            share.accumulator += from;
          });
  });
}

}  // namespace limpid
