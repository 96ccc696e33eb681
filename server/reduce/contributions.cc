// SPDX-License-Identifier: Apache-2.0
#include "server/reduce/contributions.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace limpid {
namespace {

constexpr int64_t kMostRows = 64;
constexpr int64_t kBlockBytes = int64_t{32} << 20;

int64_t RowsAtOnce(int64_t length, int64_t width) {
  const int64_t row_bytes =
      length * width * static_cast<int64_t>(sizeof(float));
  return std::clamp<int64_t>(kBlockBytes / std::max<int64_t>(1, row_bytes), 1,
                             kMostRows);
}

}  // namespace

ContributionReducer::ContributionReducer(const BlockAttention& attention,
                                         const MatrixForm& form, RowRange rows,
                                         ContributionMeasure measure)
    : attention_(attention),
      map_(attention.Map(form)),
      rows_(rows),
      measure_(std::move(measure)),
      matrix_(at::empty({rows.size(), attention.num_positions()},
                        attention.Stream().options())) {}

int64_t ContributionReducer::rows_at_once() const {
  return RowsAtOnce(attention_.num_positions(), attention_.Stream().size(1));
}

int64_t ContributionReducer::Bytes(int64_t length, int64_t width) {
  // The contributions, the measure's intermediate results, and a slab's
  // products beside the slab.
  return 6 * RowsAtOnce(length, width) * length * width *
         static_cast<int64_t>(sizeof(float));
}

absl::Status ContributionReducer::OnSlab(const AttentionSlab& slab) {
  const int64_t channels = slab.values.size(0), rows = slab.values.size(1);
  const int64_t length = slab.values.size(2);
  const at::Tensor& projection = attention_.Projection().weight;
  const at::Tensor weight =
      projection.narrow(1, slab.channel_begin, channels).t();
  if (slab.channel_begin == 0) {
    contributions_ =
        at::zeros({rows * length, projection.size(0)}, matrix_.options());
  }
  const at::Tensor value =
      map_.value.narrow(1, slab.channel_begin, channels).t().unsqueeze(1);
  contributions_.addmm_((slab.values * value).view({channels, -1}).t(), weight);
  if (slab.channel_begin + channels < attention_.num_channels()) {
    return absl::OkStatus();
  }
  const at::Tensor whole = contributions_.view({rows, length, -1});
  if (map_.direct.defined()) {
    const at::Tensor own =
        at::mm(map_.direct.narrow(0, slab.row_begin, rows), projection.t());
    // The last dimension of the diagonal counts rows.
    whole.diagonal(slab.row_begin, 0, 1).add_(own.t());
  }
  matrix_.narrow(0, slab.row_begin - rows_.begin, rows)
      .copy_(measure_(whole, {slab.row_begin, slab.row_begin + rows}));
  contributions_.reset();
  return absl::OkStatus();
}

ContributionMeasure NormMeasure(int64_t order) {
  return [order](const at::Tensor& contributions, RowRange) {
    return contributions.norm(order, {2});
  };
}

ContributionMeasure ProximityMeasure(const BlockAttention& attention,
                                     const MatrixForm& form) {
  const OutputProjection& projection = attention.Projection();
  const at::Tensor before = attention.Stream();
  at::Tensor after =
      before + at::mm(attention.Map(form).output, projection.weight.t());
  if (projection.bias.defined()) after = after + projection.bias;
  return [before, after](const at::Tensor& contributions, RowRange rows) {
    const at::Tensor stream = after.narrow(0, rows.begin, rows.size());
    at::Tensor rest = stream.unsqueeze(1) - contributions;
    rest.diagonal(rows.begin, 0, 1)
        .sub_(before.narrow(0, rows.begin, rows.size()).t());
    // Number by number: the difference of two sums would lose what small
    // contributions are.
    at::Tensor near =
        rest.abs_().neg_().add_(stream.abs().unsqueeze(1)).sum(2).clamp_min_(0);
    const at::Tensor sum = near.sum(1, /*keepdim=*/true);
    near.div_(at::where(sum > 0, sum, at::ones_like(sum)));
    near.diagonal(rows.begin).add_((sum <= 0).squeeze(1).to(near.dtype()));
    return near;
  };
}

}  // namespace limpid
