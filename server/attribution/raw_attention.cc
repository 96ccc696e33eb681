// SPDX-License-Identifier: Apache-2.0
//
// Raw attention: the explained position's row of every layer, reduced over
// channels, averaged over layers.
#include "server/attribution/raw_attention.h"

#include <ATen/ATen.h>

namespace limpid::attributions::raw_attention {
namespace {

class RawAttention final : public Attribution {
 public:
  explicit RawAttention(const AttributionContext& context)
      : start_layer_(context.options.start_layer.value_or(0)) {}

  absl::Status OnLayer(int64_t, const at::Tensor& attention) override {
    rows_.push_back(attention.select(0, 0).clone());
    return absl::OkStatus();
  }

  absl::StatusOr<AttributionResult> Finish(const ResolvedTarget&,
                                           const ProgressFunction&,
                                           const CancelToken&) override {
    AttributionResult result;
    result.layers = at::stack(rows_);
    result.values = result.layers.slice(0, start_layer_).mean(0);
    return result;
  }

 private:
  const int64_t start_layer_;
  std::vector<at::Tensor> rows_;
};

}  // namespace

MethodEntry Entry() {
  MethodEntry entry;
  entry.spec.name = "raw-attention";
  entry.spec.description =
      "The row of the implicit attention matrix at the explained position, "
      "reduced over channels and averaged over layers. Says where the blocks "
      "look; independent of the target.";
  entry.spec.source = "arXiv:2405.16504; arXiv:2403.01590, section 4.1";
  entry.spec.options = {
      {"start_layer",
       "first layer of the average, 0 to layers - 1; default 0"}};
  entry.need = AttentionNeed::kRow;
  entry.make = [](const AttributionContext& context)
      -> std::unique_ptr<Attribution> {
    return std::make_unique<RawAttention>(context);
  };
  entry.num_gradients = [](const MethodOptions&) -> int64_t { return 0; };
  entry.bytes = [](const Network& network, const MethodOptions&,
                   int64_t length, int64_t) {
    return 2 * network.info().num_layers * length *
           static_cast<int64_t>(sizeof(double));
  };
  return entry;
}

}  // namespace limpid::attributions::raw_attention
