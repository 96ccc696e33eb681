// SPDX-License-Identifier: Apache-2.0
#include "tests/support/run_method.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace limpid::testing {
namespace {

const MethodEntry& EntryOf(const MethodCall& call) {
  const MethodEntry* entry = FindMethod(call.method);
  EXPECT_NE(entry, nullptr) << call.method;
  return *entry;
}

ChannelReduction ReductionOf(const MethodCall& call) {
  return call.reduction.value_or(EntryOf(call).default_reduction);
}

}  // namespace

ExplainedPoint PointOf(const Network& network, const MethodCall& call) {
  const ModelInfo& info = network.info();
  const bool picture = info.modality == Modality::kImage;
  return {call.position, picture ? info.class_token : call.position,
          call.target};
}

AttributionResult RunMethod(const Network& network, const NetworkInput& input,
                            const MethodCall& call) {
  const MethodEntry& entry = EntryOf(call);
  const ChannelReduction reduction = ReductionOf(call);
  const at::Tensor embeddings = network.Embed(input);
  const AttributionContext context{
      network,   embeddings, input.pixels, {call.position},
      call.form, reduction,  call.options, call.memory_bytes};
  const std::unique_ptr<Attribution> attribution = entry.make(context);
  const ExplainedPoint point = PointOf(network, call);
  const RowRange rows = RowsFor(entry.need(reduction), {call.position},
                                network.info().causal, context.length());
  const auto visit = [&](int64_t layer, int64_t,
                         const BlockAttention& attention) -> absl::Status {
    if (rows.size() == 0) return absl::OkStatus();
    auto reducer = attribution->MakeReducer(attention, rows);
    if (reducer == nullptr) {
      reducer = std::make_unique<ChannelReducer>(reduction, attention, rows);
    }
    for (int64_t row = rows.begin; row < rows.end;
         row += reducer->rows_at_once()) {
      LIMPID_RETURN_IF_ERROR(attention.Visit(
          call.form, {row, std::min(row + reducer->rows_at_once(), rows.end)},
          *reducer, CancelToken()));
    }
    return attribution->OnLayer(layer, reducer->Finish(), rows);
  };
  const auto scores =
      network.Forward(embeddings, {point.readout}, visit, CancelToken());
  EXPECT_TRUE(scores.ok()) << scores.status();
  const auto results = attribution->Finish(
      {point}, [](int64_t, int64_t) { return absl::OkStatus(); },
      CancelToken());
  EXPECT_TRUE(results.ok()) << call.method << ": " << results.status();
  return results.ok() ? results->front() : AttributionResult();
}

MethodCost PriceOf(const Network& network, int64_t length,
                   const MethodCall& call) {
  return EntryOf(call).cost({network,
                             call.options,
                             ReductionOf(call),
                             length,
                             {call.position},
                             call.memory_bytes});
}

}  // namespace limpid::testing
