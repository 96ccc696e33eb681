// SPDX-License-Identifier: Apache-2.0
//
// Runs a plan: one forward pass that visits the layers, the method, the reply.
#pragma once

#include "server/base/clock.h"
#include "server/explain/plan.h"
#include "server/explain/result.h"

namespace limpid {

// Errors as Engine::Run. Torch's exceptions leave.
absl::Status RunPlan(const ExplanationPlan& plan, ResultSink& sink,
                     const CancelToken& cancel);

}  // namespace limpid
