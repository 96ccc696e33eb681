// SPDX-License-Identifier: Apache-2.0
//
// Raw attention: the explained position's row of every layer, reduced over
// channels, averaged over layers.
#include "server/attribution/raw_attention.h"

#include "server/attribution/layer_rows.h"

namespace limpid::attributions::raw_attention {

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
  entry.need = [](ChannelReduction) { return AttentionNeed::kRow; };
  entry.make =
      [](const AttributionContext& context) -> std::unique_ptr<Attribution> {
    return std::make_unique<LayerRows>(context);
  };
  entry.cost = LayerRows::Cost;
  return entry;
}

}  // namespace limpid::attributions::raw_attention
