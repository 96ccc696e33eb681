// SPDX-License-Identifier: Apache-2.0
#include "server/reduce/channel_reduction.h"

#include <array>
#include <utility>

namespace limpid {
namespace {

constexpr std::array<std::pair<ChannelReduction, const char*>, 9> kNames = {{
    {ChannelReduction::kMeanAbs, "mean-abs"},
    {ChannelReduction::kMean, "mean"},
    {ChannelReduction::kMeanPos, "mean-pos"},
    {ChannelReduction::kPosMean, "pos-mean"},
    {ChannelReduction::kMax, "max"},
    {ChannelReduction::kMin, "min"},
    {ChannelReduction::kL2, "l2"},
    {ChannelReduction::kWnorm, "wnorm"},
    {ChannelReduction::kAll, "all"},
}};

}  // namespace

absl::string_view ReductionName(ChannelReduction reduction) {
  for (const auto& [value, name] : kNames) {
    if (value == reduction) return name;
  }
  return "unknown";
}

std::optional<ChannelReduction> ParseReduction(absl::string_view name) {
  for (const auto& [value, text] : kNames) {
    if (name == text) return value;
  }
  return std::nullopt;
}

}  // namespace limpid
