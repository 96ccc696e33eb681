// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fixed_network.h"

#include <ATen/ATen.h>

#include <utility>

#include "server/models/residual_network.h"

namespace limpid::testing {
namespace {

// alpha_c u_c of every channel; u is [..., L, D].
at::Tensor Mixed(const at::Tensor& alpha, const at::Tensor& u) {
  return at::einsum("cij,...jc->...ic", {alpha, u});
}

class FixedAttention final : public BlockAttention {
 public:
  FixedAttention(const FixedBlock& block, at::Tensor stream)
      : alpha_(block.alpha),
        projection_{block.out, at::Tensor()},
        stream_(std::move(stream)),
        value_(at::mm(stream_, block.in.t())) {}

  int64_t num_positions() const override { return alpha_.size(1); }
  int64_t num_channels() const override { return alpha_.size(0); }
  BlockMap Map(const MatrixForm&) const override {
    return {value_, at::zeros_like(value_), Mixed(alpha_, value_),
            at::Tensor()};
  }
  const OutputProjection& Projection() const override { return projection_; }
  const at::Tensor& Stream() const override { return stream_; }
  at::Tensor Apply(const MatrixForm&, const at::Tensor& u) const override {
    return Mixed(alpha_, u);
  }
  at::Tensor ApplyTransposed(const MatrixForm&,
                             const at::Tensor& u) const override {
    return Mixed(alpha_.transpose(1, 2), u);
  }
  absl::Status Visit(const MatrixForm&, RowRange rows, AttentionSink& sink,
                     const CancelToken&) const override {
    return sink.OnSlab(
        {0, rows.begin,
         alpha_.narrow(1, rows.begin, rows.size()).contiguous()});
  }

 private:
  const at::Tensor alpha_;
  const OutputProjection projection_;
  const at::Tensor stream_;
  const at::Tensor value_;
};

class FixedLayer final : public Layer {
 public:
  explicit FixedLayer(FixedBlock block) : block_(std::move(block)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override {
    for (int64_t i = 0; pass.visits() && i < stream.size(0); ++i) {
      pass.Visit(i, FixedAttention(block_, stream[i]));
    }
    const at::Tensor value = at::matmul(stream, block_.in.t());
    return stream + pass.BlockOutput(
                        at::matmul(Mixed(block_.alpha, value), block_.out.t()));
  }
  int64_t num_channels() const override { return block_.alpha.size(0); }
  LayerCost Cost(int64_t) const override { return {}; }

 private:
  const FixedBlock block_;
};

}  // namespace

std::unique_ptr<const Network> MakeFixedNetwork(FixedParts parts) {
  ResidualParts network;
  network.options.dtype = at::kDouble;
  network.info.hidden_size = parts.head.size(1);
  network.info.vocabulary_size = parts.head.size(0);
  network.info.forms = {AttentionForm::kFull};
  network.embed = TokenEmbedding(parts.table);
  network.mean_embedding = parts.table.mean(0);
  for (FixedBlock& block : parts.blocks) {
    network.layers.push_back(std::make_unique<FixedLayer>(std::move(block)));
  }
  network.head = [head = parts.head, bias = parts.bias](
                     const at::Tensor& stream, const Pass&) {
    return at::matmul(stream, head.t()) + bias;
  };
  return MakeResidualNetwork(std::move(network));
}

}  // namespace limpid::testing
