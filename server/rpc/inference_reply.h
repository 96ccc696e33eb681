// SPDX-License-Identifier: Apache-2.0
//
// Our replies -> those of the Open Inference Protocol.
#pragma once

#include "inference/open_inference.pb.h"
#include "limpid/v1/explanation.pb.h"
#include "server/base/status.h"
#include "server/models/model.h"
#include "server/registry/model_registry.h"
#include "server/rpc/inference_request.h"

namespace limpid {

// The tensors that `request` asked for. FAILED_PRECONDITION, reason
// OUTPUT_NOT_MADE, names those that the method does not make.
absl::StatusOr<inference::ModelInferResponse> EncodeInference(
    const v1::ExplainResponse& response, const InferenceRequest& request);

// What a resident model takes, and what it gives by default. `versions` as in
// ModelStatus.
inference::ModelMetadataResponse EncodeMetadata(
    const ModelInfo& info, const std::vector<int64_t>& versions);

inference::RepositoryIndexResponse::ModelIndex EncodeIndexEntry(
    const ModelStatus& status);

}  // namespace limpid
