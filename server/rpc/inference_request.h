// SPDX-License-Identifier: Apache-2.0
//
// Requests of the Open Inference Protocol -> our own.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "inference/open_inference.pb.h"
#include "limpid/v1/explanation.pb.h"
#include "server/base/status.h"

namespace limpid {

// What the protocol calls the version of a model that has none.
inline constexpr char kOnlyVersion[] = "1";

// Our name for a version ("": the newest) of a model, or a violation of
// `field` if the model has no such version.
using ModelNamer =
    std::function<std::string(const char* field, const std::string& model,
                              const std::string& version, Violations&)>;

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
    const inference::ModelInferRequest& message, const ModelNamer& name_of);

}  // namespace limpid
