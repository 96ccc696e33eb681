// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/baseline.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace limpid {

const char kBaselineChoices[] =
    "zero; for text mean (of the embedding table), token:ID or "
    "tokens:ID,ID,... (one per position); for pictures blur";

namespace {

// The blur along a line of n pixels as a matrix [n, n]: what lies beyond the
// ends is the pixel at the end.
at::Tensor BlurMatrix(int64_t n, double deviation) {
  const int64_t radius =
      std::max<int64_t>(1, static_cast<int64_t>(std::ceil(3 * deviation)));
  at::Tensor matrix = at::zeros({n, n}, at::kDouble);
  auto entries = matrix.accessor<double, 2>();
  for (int64_t to = 0; to < n; ++to) {
    for (int64_t distance = -radius; distance <= radius; ++distance) {
      const int64_t from = std::clamp<int64_t>(to + distance, 0, n - 1);
      entries[to][from] += std::exp(static_cast<double>(distance * distance) /
                                    (-2 * deviation * deviation));
    }
  }
  return matrix / matrix.sum(1, /*keepdim=*/true);
}

}  // namespace

at::Tensor Blurred(const at::Tensor& pixels) {
  const int64_t height = pixels.size(2), width = pixels.size(3);
  const double deviation = static_cast<double>(std::min(height, width)) / 16;
  const auto matrix = [&](int64_t n) {
    return BlurMatrix(n, deviation).to(pixels.options());
  };
  return at::matmul(at::matmul(matrix(height), pixels), matrix(width).t());
}

Baseline DefaultBaseline(const ModelInfo& info) {
  Baseline baseline;
  if (info.modality == Modality::kImage) baseline.kind = Baseline::Kind::kBlur;
  return baseline;
}

at::Tensor BaselineEmbeddings(const AttributionContext& context,
                              const Baseline& baseline) {
  const Network& network = context.network;
  const at::Tensor input = context.embeddings[0];
  // Through the network, since an embedding may be more than a row of the
  // table.
  const auto of_tokens = [&](const at::Tensor& ids) {
    return network.Embed({ids.unsqueeze(0), at::Tensor()})[0];
  };
  switch (baseline.kind) {
    case Baseline::Kind::kMean:
      return network.MeanEmbedding().expand_as(input);
    case Baseline::Kind::kToken:
      return of_tokens(at::full({input.size(0)}, baseline.token_id, at::kLong));
    case Baseline::Kind::kTokens:
      return of_tokens(at::tensor(baseline.token_ids, at::kLong));
    case Baseline::Kind::kBlur:
      return network.Embed({at::Tensor(), Blurred(context.pixels)})[0];
    default:
      return at::zeros_like(input);
  }
}

}  // namespace limpid
