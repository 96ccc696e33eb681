// SPDX-License-Identifier: Apache-2.0
#include "server/attribution/baseline.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace limpid {

const char kBaselineChoices[] =
    "zero; for text mean (of the embedding table), token:ID or "
    "tokens:ID,ID,... "
    "(one per position); for pictures blur; default zero";

at::Tensor Blurred(const at::Tensor& pixels) {
  const double deviation =
      static_cast<double>(std::min(pixels.size(2), pixels.size(3))) / 16;
  const int64_t radius =
      std::max<int64_t>(1, static_cast<int64_t>(std::ceil(3 * deviation)));
  const at::Tensor distance =
      at::arange(-radius, radius + 1, pixels.options().dtype(at::kDouble));
  at::Tensor weight = at::exp(distance.square() / (-2 * deviation * deviation));
  weight = (weight / weight.sum()).to(pixels.dtype()).view({1, 1, -1});
  // Rows and columns one after the other, every line by itself.
  const auto along_last = [&](const at::Tensor& tensor) {
    const at::Tensor lines = tensor.reshape({-1, 1, tensor.size(-1)});
    return at::conv1d(at::replication_pad1d(lines, {radius, radius}), weight)
        .view(tensor.sizes());
  };
  const at::Tensor columns =
      along_last(pixels.transpose(2, 3).contiguous()).transpose(2, 3);
  return along_last(columns.contiguous());
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
