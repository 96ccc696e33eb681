// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>
#include <utility>

#include "server/models/fold_on_gpu.h"
#include "server/models/kernel_dispatch.h"
#include "server/models/kernel_ops.h"

namespace limpid {
namespace {

template <typename T>
kernels::SelectiveSsm<T> Ssm(const FrozenSsm& ssm) {
  TORCH_CHECK(ssm.a.is_contiguous());
  kernels::SelectiveSsm<T> out;
  out.num_positions = ssm.delta.size(0);
  out.num_channels = ssm.a.size(0);
  out.state_size = ssm.a.size(1);
  out.delta = Data<T>(ssm.delta);
  out.delta_stride = RowStride(ssm.delta);
  out.a = Data<T>(ssm.a);
  out.b = Data<T>(ssm.b);
  out.b_stride = RowStride(ssm.b);
  out.c = Data<T>(ssm.c);
  out.c_stride = RowStride(ssm.c);
  out.skip = Data<T>(ssm.skip);
  return out;
}

// Without rows, channels and output.
template <typename T>
kernels::SsmAttention<T> Attention(const FrozenSsm& ssm,
                                   const FrozenFactors& factors) {
  kernels::SsmAttention<T> op;
  op.ssm = Ssm<T>(ssm);
  SetFactors<T>(factors, op);
  return op;
}

}  // namespace

at::Tensor SelectiveScan(const FrozenSsm& ssm, const at::Tensor& u) {
  at::Tensor y = at::empty({u.size(0), u.size(1)}, u.options());
  Dispatch(u, [&](auto zero) {
    using T = decltype(zero);
    kernels::SelectiveScan<T> op;
    op.ssm = Ssm<T>(ssm);
    op.u = Data<T>(u);
    op.u_stride = RowStride(u);
    op.y = y.mutable_data_ptr<T>();
    op.y_stride = y.stride(0);
    RunOp(u, op, 0, op.ssm.num_channels, kChannelGrain,
          [](auto& share, int64_t from, int64_t to) {
            share.channel_begin = from;
            share.channel_end = to;
          });
  });
  return y;
}

at::Tensor CausalConv1d(const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias) {
  at::Tensor out = at::empty({x.size(0), x.size(1)}, x.options());
  Dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(weight.is_contiguous());
    kernels::CausalConv1d<T> op;
    op.num_positions = x.size(0);
    op.num_channels = x.size(1);
    op.width = weight.size(1);
    op.weight = Data<T>(weight);
    op.bias = Data<T>(bias);
    op.x = Data<T>(x);
    op.x_stride = RowStride(x);
    op.out = out.mutable_data_ptr<T>();
    op.out_stride = out.stride(0);
    RunOp(x, op, 0, 1, 1, [](auto&, int64_t, int64_t) {});
  });
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

bool FoldSsmAttention(const FrozenSsm& ssm, const FrozenFactors& factors,
                      const AttentionFold& fold) {
  return FoldOnGpu<kernels::SsmAttentionFold<float>>(fold, [&](auto& op) {
    op.attention = Attention<float>(ssm, factors);
    op.attention.channel_end = op.attention.ssm.num_channels;
    op.attention.row_end = op.attention.ssm.num_positions;
  });
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
    RunOp(slab, op, 0, 1, 1, [](auto&, int64_t, int64_t) {});
  });
}

namespace {

struct ScanGradients {
  at::Tensor u, delta, b, c;
};

// Adjoint of the scan of one sequence.
ScanGradients ScanBackward(const FrozenSsm& ssm, const at::Tensor& u,
                           const at::Tensor& dy) {
  ScanGradients out;
  out.u = at::empty_like(u, at::MemoryFormat::Contiguous);
  out.delta = at::empty_like(u, at::MemoryFormat::Contiguous);
  out.b = at::zeros({ssm.b.size(0), ssm.b.size(1)}, u.options());
  out.c = at::zeros_like(out.b);
  Dispatch(u, [&](auto zero) {
    using T = decltype(zero);
    kernels::SelectiveScanBackward<T> op;
    op.ssm = Ssm<T>(ssm);
    op.u = Data<T>(u);
    op.u_stride = RowStride(u);
    op.dy = Data<T>(dy);
    op.dy_stride = RowStride(dy);
    op.du = out.u.mutable_data_ptr<T>();
    op.ddelta = out.delta.mutable_data_ptr<T>();
    const int64_t channels = op.ssm.num_channels;
    if (u.is_cpu()) {
      // Sums over channels are made per fixed block and added in order, so
      // that the result does not depend on the number of threads.
      const int64_t block = 4 * kChannelGrain;
      const int64_t blocks = (channels + block - 1) / block;
      at::Tensor db =
          at::zeros({blocks, out.b.size(0), out.b.size(1)}, u.options());
      at::Tensor dc = at::zeros_like(db);
      std::mutex mutex;
      absl::Status first;
      at::parallel_for(0, blocks, 1, [&](int64_t from, int64_t to) {
        at::Tensor scratch = at::empty(
            {kernels::cpu::SelectiveScanBackwardScratch(op.ssm, block)},
            u.options());
        for (int64_t index = from; index < to; ++index) {
          auto share = op;
          share.channel_begin = index * block;
          share.channel_end = std::min(channels, (index + 1) * block);
          share.db = db.mutable_data_ptr<T>() + index * out.b.numel();
          share.dc = dc.mutable_data_ptr<T>() + index * out.b.numel();
          share.scratch = scratch.mutable_data_ptr<T>();
          absl::Status status = kernels::cpu::Run(share);
          if (!status.ok()) {
            std::lock_guard<std::mutex> lock(mutex);
            first = status;
          }
        }
      });
      OrThrow(first);
      out.b = db.sum(0);
      out.c = dc.sum(0);
      return;
    }
#ifdef LIMPID_WITH_CUDA
    at::Tensor scratch = at::empty(
        {kernels::cuda::SelectiveScanBackwardScratch(op.ssm, channels)},
        u.options());
    op.db = out.b.mutable_data_ptr<T>();
    op.dc = out.c.mutable_data_ptr<T>();
    op.scratch = scratch.mutable_data_ptr<T>();
    RunOp(u, op, 0, channels, 1, [](auto& share, int64_t from, int64_t to) {
      share.channel_begin = from;
      share.channel_end = to;
    });
#endif
  });
  return out;
}

at::Tensor ScanBatch(const at::Tensor& u, const at::Tensor& delta,
                     const at::Tensor& b, const at::Tensor& c,
                     const at::Tensor& a, const at::Tensor& skip) {
  std::vector<at::Tensor> y;
  for (int64_t sequence = 0; sequence < u.size(0); ++sequence) {
    const FrozenSsm ssm{delta[sequence], a, b[sequence], c[sequence], skip};
    y.push_back(SelectiveScan(ssm, u[sequence]));
  }
  return at::stack(y);
}

class ScanFunction : public torch::autograd::Function<ScanFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& u, const at::Tensor& delta,
                            const at::Tensor& b, const at::Tensor& c,
                            const at::Tensor& a, const at::Tensor& skip) {
    context->save_for_backward({u, delta, b, c, a, skip});
    return ScanBatch(u, delta, b, c, a, skip);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &u = saved[0], &delta = saved[1], &b = saved[2],
                     &c = saved[3], &a = saved[4], &skip = saved[5];
    const at::Tensor dy = gradients[0].contiguous();
    std::vector<at::Tensor> du, ddelta, db, dc;
    for (int64_t sequence = 0; sequence < u.size(0); ++sequence) {
      const FrozenSsm ssm{delta[sequence], a, b[sequence], c[sequence], skip};
      ScanGradients out = ScanBackward(ssm, u[sequence], dy[sequence]);
      du.push_back(std::move(out.u));
      ddelta.push_back(std::move(out.delta));
      db.push_back(std::move(out.b));
      dc.push_back(std::move(out.c));
    }
    return {at::stack(du), at::stack(ddelta), at::stack(db),
            at::stack(dc), at::Tensor(),      at::Tensor()};
  }
};

}  // namespace

at::Tensor SelectiveScan(const at::Tensor& u, const at::Tensor& delta,
                         const at::Tensor& b, const at::Tensor& c,
                         const at::Tensor& a, const at::Tensor& skip) {
  if (!at::GradMode::is_enabled()) return ScanBatch(u, delta, b, c, a, skip);
  return ScanFunction::apply(u.contiguous(), delta.contiguous(), b.contiguous(),
                             c.contiguous(), a, skip);
}

}  // namespace limpid
