// SPDX-License-Identifier: Apache-2.0
//
// Headers, summaries and models as messages.
#pragma once

#include <string>
#include <vector>

#include "limpid/v1/explanation.pb.h"
#include "limpid/v1/model.pb.h"
#include "server/attribution/method_spec.h"
#include "server/explain/engine.h"
#include "server/explain/result.h"
#include "server/registry/model_registry.h"

namespace limpid {

// What a header says beside the result.
struct ReplyContext {
  std::string request_id;
  std::string server_version;
};

v1::ExplanationHeader EncodeHeader(const ResultHeader& header,
                                   const ModelInfo& model,
                                   const ReplyContext& context);

// The target is a class of a model that reads pictures, else a token. `header`
// is the one that went before. Cost and times are added by the caller.
v1::ExplanationSummary EncodeSummary(const ResultSummary& summary,
                                     const ModelInfo& model,
                                     const v1::ExplanationHeader& header);

v1::Cost EncodeCost(const Cost& cost, bool fits_unary_reply);

// A model with what it offers of `methods`.
v1::Model EncodeModel(const ModelStatus& status,
                      const std::vector<MethodSpec>& methods,
                      int64_t max_tokens);

// `architectures`: all that are built in, for methods that serve every one.
v1::Method EncodeMethod(const MethodSpec& method,
                        const std::vector<std::string>& architectures);

void SetDuration(absl::Duration duration, google::protobuf::Duration& message);

}  // namespace limpid
