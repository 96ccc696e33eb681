// SPDX-License-Identifier: Apache-2.0
//
// Requests as messages -> requests as plain data, with everything that can be
// judged without a model judged: every wrong field at once.
#pragma once

#include <string>
#include <vector>

#include "limpid/v1/explanation.pb.h"
#include "server/attribution/method_spec.h"
#include "server/base/status.h"
#include "server/explain/request.h"
#include "server/rpc/encode.h"

namespace limpid {

// What a message says.
struct ValidatedRequest {
  std::string model;
  // Wrong fields hold a stand-in where their value means nothing to the engine,
  // so that it can look for more wrong fields in the rest.
  ExplainRequest request;
  EncodeOptions encode;
  bool validate_only = false;

  std::vector<FieldViolation> violations;
  // Paths whose stand-ins the engine must not be heard about.
  std::vector<std::string> stand_ins;

  // Ok; else INVALID_ARGUMENT, reason INVALID_REQUEST, with all violations.
  absl::Status ToStatus() const;
};

// `methods`: those that are built in; another one is a violation.
ValidatedRequest Validate(const v1::ExplainRequest& message,
                          const std::vector<MethodSpec>& methods);

// A heatmap is made of the attribution alone.
v1::ExplainRequest ToExplainRequest(const v1::RenderHeatmapRequest& message);

// ToStatus with the fields that the engine found wrong added. `engine` is the
// status of Engine::MakePlan for `request.request`; one that is no
// INVALID_ARGUMENT is the answer only if the message itself is in order.
absl::Status MergeStatus(const ValidatedRequest& request,
                         const absl::Status& engine);

}  // namespace limpid
