// SPDX-License-Identifier: Apache-2.0
//
// Runs the plans of a batch: one forward pass for all, and each request's own
// part by itself.
#pragma once

#include <functional>
#include <vector>

#include "server/base/clock.h"
#include "server/explain/engine.h"
#include "server/explain/plan.h"

namespace limpid {

// How a member has ended; called before its `done`, which is told what this
// returns.
using EndObserver = std::function<absl::Status(const ExplanationPlan& plan,
                                               const absl::Status& status)>;

// Runs them on a copy of their network. Calls every member's `done` once, on
// this thread. A member that fails leaves the others alone. What does not fit
// in memory together is run again in halves, as far as nothing has been sent of
// it. Torch's exceptions stop here.
void RunMembers(const ModelCopy& copy, const std::vector<BatchMember>& members,
                const EndObserver& on_end);

}  // namespace limpid
