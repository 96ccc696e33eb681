// SPDX-License-Identifier: Apache-2.0
//
// Requests of the Open Inference Protocol -> our own.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "inference/open_inference.pb.h"
#include "limpid/v1/explanation.pb.h"
#include "server/base/status.h"

namespace limpid {

// Models have one version.
inline constexpr char kModelVersion[] = "1";

struct InferenceRequest {
  v1::ExplainRequest explain;
  std::string id;
  // Outputs that were asked for; empty: all.
  std::vector<std::string> outputs;
  // Whether tensors come, and shall go, packed.
  bool raw = false;
};

// INVALID_ARGUMENT with every field that is wrong in this protocol. Values are
// judged later, with the fields of limpid.v1.ExplainRequest.
absl::StatusOr<InferenceRequest> ToExplainRequest(
    const inference::ModelInferRequest& message);

// A violation of `field` unless the version is empty or ours.
void CheckVersion(absl::string_view field, absl::string_view version,
                  Violations& violations);

}  // namespace limpid
