// SPDX-License-Identifier: Apache-2.0
//
// The S6 recurrence of a batch, and its gradients.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "server/models/frozen_ssm.h"
#include "server/models/kernel_dispatch.h"
#include "server/models/kernel_ops.h"

namespace limpid {
namespace {

// `gate` is set where it is defined.
Scanned ScanBatch(const at::Tensor& u, const at::Tensor& delta,
                  const at::Tensor& b, const at::Tensor& c, const at::Tensor& a,
                  const at::Tensor& skip, const AfterScan& after,
                  const at::Tensor& gate, const Packing& packing) {
  // Positions of all sequences one after the other.
  const auto rows = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.flatten(0, 1) : tensor;
  };
  const FrozenSsm ssm{rows(delta), a, rows(b), rows(c), skip};
  const at::Tensor input = rows(u), gate_input = rows(after.gate_input);
  Scanned out;
  out.y =
      after.added.defined() ? after.added : at::empty(u.sizes(), u.options());
  out.gate = gate;
  Dispatch(u, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(out.y.is_contiguous());
    kernels::SelectiveScan<T> op;
    op.ssm = Ssm<T>(ssm);
    op.ssm.num_positions = u.size(1);
    op.num_sequences = packing.CountOf(u);
    op.begins = Begins(packing, u);
    op.u = Data<T>(input);
    op.u_stride = RowStride(input);
    op.y = out.y.mutable_data_ptr<T>();
    op.y_stride = u.size(2);
    op.reversed = after.reversed;
    if (after.added.defined()) op.added = op.y;
    op.gate_input = Data<T>(gate_input);
    op.gate_input_stride = RowStride(gate_input);
    if (gate.defined()) op.gate = gate.mutable_data_ptr<T>();
    op.scale = static_cast<T>(after.scale);
    RunOp(u, op, 0, op.ssm.num_channels, kChannelGrain,
          [](auto& share, int64_t from, int64_t to) {
            share.channel_begin = from;
            share.channel_end = to;
          });
  });
  return out;
}

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

class ScanFunction : public torch::autograd::Function<ScanFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& u, const at::Tensor& delta,
                            const at::Tensor& b, const at::Tensor& c,
                            const at::Tensor& a, const at::Tensor& skip) {
    context->save_for_backward({u, delta, b, c, a, skip});
    return ScanBatch(u, delta, b, c, a, skip, {}, {}, {}).y;
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
  if (!at::GradMode::is_enabled()) {
    return ScanBatch(u, delta, b, c, a, skip, {}, {}, {}).y;
  }
  return ScanFunction::apply(u.contiguous(), delta.contiguous(), b.contiguous(),
                             c.contiguous(), a, skip);
}

Scanned SelectiveScan(const at::Tensor& u, const at::Tensor& delta,
                      const at::Tensor& b, const at::Tensor& c,
                      const at::Tensor& a, const at::Tensor& skip,
                      const AfterScan& after, bool keeps_gate,
                      const Packing& packing) {
  at::Tensor gate;
  if (keeps_gate && after.gate_input.defined()) {
    gate = at::empty(u.sizes(), u.options());
  }
  return ScanBatch(u, delta, b, c, a, skip, after, gate, packing);
}

at::Tensor SelectiveScan(const FrozenSsm& ssm, const at::Tensor& u) {
  if (u.dim() == 3) {
    return ScanBatch(u, ssm.delta, ssm.b, ssm.c, ssm.a, ssm.skip, {}, {}, {}).y;
  }
  const auto one = [](const at::Tensor& tensor) { return tensor.unsqueeze(0); };
  return ScanBatch(one(u), one(ssm.delta), one(ssm.b), one(ssm.c), ssm.a,
                   ssm.skip, {}, {}, {})
      .y.squeeze(0);
}

}  // namespace limpid
