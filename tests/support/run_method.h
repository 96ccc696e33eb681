// SPDX-License-Identifier: Apache-2.0
//
// A method on a network without an engine: any precision, no checkpoint.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "server/attribution/method.h"

namespace limpid::testing {

// What is asked, as a request would.
struct MethodCall {
  std::string method;
  MatrixForm form;
  std::optional<ChannelReduction> reduction;  // else the method's default
  MethodOptions options;
  int64_t position = 0;
  ResolvedTarget target;
  int64_t memory_bytes = int64_t{1} << 24;
};

// The explained point; pictures are read out at the class token.
ExplainedPoint PointOf(const Network& network, const MethodCall& call);

// Runs the method as the engine does: a forward pass that shows it the rows it
// needs, in blocks of as many as its reducer takes, then the method itself.
// Fails the test if that fails.
AttributionResult RunMethod(const Network& network, const NetworkInput& input,
                            const MethodCall& call);

// What the engine would reserve for it beside the forward pass.
MethodCost PriceOf(const Network& network, int64_t length,
                   const MethodCall& call);

}  // namespace limpid::testing
