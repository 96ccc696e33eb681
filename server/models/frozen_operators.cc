// SPDX-License-Identifier: Apache-2.0
#include "server/models/frozen_operators.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "server/models/slabs.h"

namespace limpid {
namespace {

class S6Operator final : public FrozenOperator {
 public:
  explicit S6Operator(FrozenSsm ssm) : ssm_(std::move(ssm)) {}

  at::Tensor Apply(const at::Tensor& u, bool include_skip) const override {
    const FrozenSsm ssm = Ssm(include_skip);
    if (!u.requires_grad()) return SelectiveScan(ssm, u);
    // A differentiable operation takes defined tensors only.
    const at::Tensor skip =
        ssm.skip.defined() ? ssm.skip : at::zeros_like(ssm_.skip);
    const auto batched = [](const at::Tensor& tensor) {
      return tensor.unsqueeze(0);
    };
    return SelectiveScan(batched(u), batched(ssm.delta), batched(ssm.b),
                         batched(ssm.c), ssm.a, skip)
        .squeeze(0);
  }
  at::Tensor AddApplied(const at::Tensor& sum, const at::Tensor& u,
                        bool include_skip, bool reversed) const override {
    if (u.requires_grad()) {
      return FrozenOperator::AddApplied(sum, u, include_skip, reversed);
    }
    const FrozenSsm ssm = Ssm(include_skip);
    const auto batched = [&](const at::Tensor& tensor) {
      return u.dim() == 3 || !tensor.defined() ? tensor : tensor.unsqueeze(0);
    };
    AfterScan after;
    after.reversed = reversed;
    after.added = batched(sum);
    return SelectiveScan(batched(u), batched(ssm.delta), batched(ssm.b),
                         batched(ssm.c), ssm.a, ssm.skip, after,
                         /*keeps_gate=*/false, Packing())
        .y.view(u.sizes());
  }
  void Entries(const FrozenFactors& factors, bool include_skip,
               int64_t channel_begin, int64_t row_begin,
               at::Tensor& out) const override {
    SsmAttention(Ssm(include_skip), factors, channel_begin, row_begin, out);
  }
  bool Fold(const FrozenFactors& factors, bool include_skip,
            const AttentionFold& fold) const override {
    return FoldSsmAttention(Ssm(include_skip), factors, fold);
  }
  bool folds_conv_bias() const override { return ssm_.delta.is_cuda(); }
  bool FoldRows(const FrozenFactors& factors, int64_t row_begin,
                const AttentionFold& fold) const override {
    return FoldSsmRows(ssm_, factors, row_begin, fold);
  }
  bool FoldWith(const FrozenOperator& back, const FrozenFactors& factors,
                const FrozenFactors& back_factors, bool include_skip,
                const AttentionFold& fold) const override {
    const auto* const other = dynamic_cast<const S6Operator*>(&back);
    return other != nullptr &&
           FoldBothDirections(Ssm(include_skip), factors,
                              other->Ssm(include_skip), back_factors, fold);
  }

  bool FoldsBatches() const override { return true; }
  std::unique_ptr<const FrozenOperator> Sequences(
      const Packing& packing, int64_t first, int64_t count) const override {
    FrozenSsm ssm = ssm_;
    for (at::Tensor* tensor : {&ssm.delta, &ssm.b, &ssm.c}) {
      *tensor = packing.Sequences(*tensor, first, count);
      if (count == 1) *tensor = tensor->squeeze(0);
    }
    return std::make_unique<S6Operator>(std::move(ssm));
  }

 private:
  FrozenSsm Ssm(bool include_skip) const {
    FrozenSsm ssm = ssm_;
    if (!include_skip) ssm.skip = at::Tensor();
    return ssm;
  }

  const FrozenSsm ssm_;
};

// Operators whose channels share the matrices of heads. A head's matrix is
// made once for all slabs of the same rows that need it.
class HeadOperator : public FrozenOperator {
 public:
  HeadOperator(int64_t channels_per_head, at::Tensor skip)
      : channels_per_head_(channels_per_head), skip_(std::move(skip)) {}

  void Entries(const FrozenFactors& factors, bool include_skip,
               int64_t channel_begin, int64_t row_begin,
               at::Tensor& out) const override {
    const int64_t first = channel_begin / channels_per_head_;
    const int64_t last = (channel_begin + out.size(0) - 1) / channels_per_head_;
    if (!heads_.defined() || row_begin != row_begin_ ||
        out.size(1) != heads_.size(1) || first < head_begin_ ||
        last >= head_begin_ + heads_.size(0)) {
      heads_ = Heads(first, last - first + 1, row_begin, out);
      head_begin_ = first;
      row_begin_ = row_begin;
    }
    ExpandHeads(heads_, head_begin_, channels_per_head_,
                include_skip ? skip_ : at::Tensor(), factors, channel_begin,
                row_begin, out);
  }
  bool Fold(const FrozenFactors& factors, bool include_skip,
            const AttentionFold& fold) const override {
    if (!fold.matrix.is_cuda() || channels_per_head_ == 1) return false;
    const int64_t heads = num_heads(), length = fold.matrix.size(1);
    const int64_t step =
        HeadRowsOnGpu(heads, heads * channels_per_head_, length).rows;
    for (int64_t row = 0; row < length; row += step) {
      if (fold.cancel != nullptr && !fold.cancel->Check().ok()) break;
      const int64_t rows = std::min(step, length - row);
      AttentionFold part = fold;
      part.matrix = fold.matrix.narrow(0, row, rows);
      if (fold.product.defined()) {
        part.product = fold.product.narrow(0, row, rows);
      }
      const at::Tensor matrices =
          Heads(0, heads, row, part.matrix.unsqueeze(0));
      if (!FoldHeads(matrices, channels_per_head_,
                     include_skip ? skip_ : at::Tensor(), factors, row, part)) {
        return false;
      }
    }
    return true;
  }

 protected:
  virtual int64_t num_heads() const = 0;
  // [count, rows, L] with rows and L as in `out`.
  virtual at::Tensor Heads(int64_t begin, int64_t count, int64_t row_begin,
                           const at::Tensor& out) const = 0;

  const int64_t channels_per_head_;
  const at::Tensor skip_;  // [D] or undefined

 private:
  mutable at::Tensor heads_;
  mutable int64_t head_begin_ = 0;
  mutable int64_t row_begin_ = 0;
};

class RecurrenceOperator final : public HeadOperator {
 public:
  RecurrenceOperator(FrozenRecurrence recurrence, int64_t channels_per_head,
                     at::Tensor skip)
      : HeadOperator(channels_per_head, std::move(skip)),
        recurrence_(std::move(recurrence)) {}

  at::Tensor Apply(const at::Tensor& u, bool include_skip) const override {
    const at::Tensor mapped =
        StateScan(recurrence_,
                  u.reshape({1, u.size(0), -1, channels_per_head_}), Packing())
            .view(u.sizes());
    return include_skip && skip_.defined() ? mapped + skip_ * u : mapped;
  }
  bool Fold(const FrozenFactors& factors, bool include_skip,
            const AttentionFold& fold) const override {
    // Without matrices of heads where each has one channel and one state.
    if (channels_per_head_ == 1 && !(include_skip && skip_.defined()) &&
        FoldScalarAttention(recurrence_, factors, fold)) {
      return true;
    }
    return HeadOperator::Fold(factors, include_skip, fold);
  }
  std::unique_ptr<const FrozenOperator> Sequences(
      const Packing& packing, int64_t first, int64_t count) const override {
    return std::make_unique<RecurrenceOperator>(
        recurrence_.Sequences(packing, first, count), channels_per_head_,
        skip_);
  }

 private:
  int64_t num_heads() const override { return recurrence_.key.size(2); }
  at::Tensor Heads(int64_t begin, int64_t count, int64_t row_begin,
                   const at::Tensor& out) const override {
    at::Tensor heads =
        at::empty({count, out.size(1), out.size(2)}, out.options());
    StateAttention(recurrence_, begin, row_begin, heads);
    return heads;
  }

  const FrozenRecurrence recurrence_;
};

class SoftmaxOperator final : public HeadOperator {
 public:
  SoftmaxOperator(std::vector<at::Tensor> probabilities,
                  int64_t channels_per_head)
      : HeadOperator(channels_per_head, at::Tensor()),
        probabilities_(std::move(probabilities)) {}

  at::Tensor Apply(const at::Tensor& u, bool) const override {
    const int64_t length = u.size(0);
    return at::bmm(probabilities_.front(),
                   u.reshape({length, -1, channels_per_head_}).transpose(0, 1))
        .transpose(0, 1)
        .reshape({length, -1});
  }
  std::unique_ptr<const FrozenOperator> Sequences(
      const Packing&, int64_t first, int64_t count) const override {
    const auto begin = probabilities_.begin() + first;
    return std::make_unique<SoftmaxOperator>(
        std::vector<at::Tensor>(begin, begin + count), channels_per_head_);
  }

 private:
  int64_t num_heads() const override { return probabilities_.front().size(0); }
  at::Tensor Heads(int64_t begin, int64_t count, int64_t row_begin,
                   const at::Tensor& out) const override {
    return probabilities_.front()
        .narrow(0, begin, count)
        .narrow(1, row_begin, out.size(1))
        .contiguous();
  }

  const std::vector<at::Tensor> probabilities_;  // [H, L, L]
};

}  // namespace

at::Tensor FrozenOperator::AddApplied(const at::Tensor& sum,
                                      const at::Tensor& u, bool include_skip,
                                      bool reversed) const {
  at::Tensor applied = Apply(u, include_skip);
  if (reversed) applied = applied.flip(-2);
  return sum.defined() ? sum + applied : applied;
}

std::unique_ptr<const FrozenOperator> MakeS6Operator(FrozenSsm ssm) {
  return std::make_unique<S6Operator>(std::move(ssm));
}

std::unique_ptr<const FrozenOperator> MakeRecurrenceOperator(
    FrozenRecurrence recurrence, int64_t channels_per_head, at::Tensor skip) {
  return std::make_unique<RecurrenceOperator>(
      std::move(recurrence), channels_per_head, std::move(skip));
}

std::unique_ptr<const FrozenOperator> MakeSoftmaxOperator(
    std::vector<at::Tensor> probabilities, int64_t channels_per_head) {
  return std::make_unique<SoftmaxOperator>(std::move(probabilities),
                                           channels_per_head);
}

}  // namespace limpid
