// SPDX-License-Identifier: Apache-2.0
#include "server/explain/thinning.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace limpid {
namespace {

// Means over blocks of [rows, columns] of the last two dimensions.
at::Tensor BlockMeans(const at::Tensor& entries, int64_t rows,
                      int64_t columns) {
  if (rows == 1 && columns == 1) return entries;
  const at::Tensor planes =
      entries.reshape({-1, entries.size(-2), entries.size(-1)});
  const at::Tensor means =
      at::avg_pool2d(planes, {rows, columns}, /*stride=*/{}, /*padding=*/0,
                     /*ceil_mode=*/true, /*count_include_pad=*/false);
  std::vector<int64_t> sizes = entries.sizes().vec();
  sizes[sizes.size() - 2] = means.size(1);
  sizes[sizes.size() - 1] = means.size(2);
  return means.view(sizes);
}

// Zeros but for the `count` largest entries of every row by absolute value.
at::Tensor LargestOfRows(const at::Tensor& entries, int64_t count) {
  if (count >= entries.size(-1)) return entries;
  const at::Tensor places = std::get<1>(entries.abs().topk(count, -1));
  return at::zeros_like(entries).scatter(-1, places,
                                         entries.gather(-1, places));
}

at::Tensor Thinned(const at::Tensor& entries, int64_t row_block,
                   const AttentionRequest& request) {
  const at::Tensor means = BlockMeans(entries, row_block, request.downsample);
  return request.top_k ? LargestOfRows(means, *request.top_k) : means;
}

}  // namespace

at::Tensor ThinnedMatrix(const at::Tensor& entries,
                         const AttentionRequest& request) {
  return Thinned(entries, request.downsample, request);
}

at::Tensor ThinnedRow(const at::Tensor& entries,
                      const AttentionRequest& request) {
  return Thinned(entries.unsqueeze(-2), 1, request).squeeze(-2);
}

}  // namespace limpid
