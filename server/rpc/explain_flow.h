// SPDX-License-Identifier: Apache-2.0
//
// What a worker does for an explanation, whatever the shape of its reply.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "limpid/v1/explanation.pb.h"
#include "server/explain/engine.h"
#include "server/observe/metrics.h"
#include "server/rpc/encode.h"
#include "server/rpc/validate.h"

namespace limpid {

// Receives the parts of a reply in the order header, progress and tensors,
// summary. A status that is not ok ends the work with it.
class ReplyWriter {
 public:
  virtual ~ReplyWriter() = default;
  virtual absl::Status Header(v1::ExplanationHeader header) = 0;
  virtual absl::Status Progress(const v1::Progress& progress) = 0;
  virtual absl::Status Tensor(v1::Tensor tensor) = 0;
  virtual absl::Status Summary(v1::ExplanationSummary summary) = 0;
  // As ResultSink::Restart.
  virtual bool Restart() { return false; }
};

struct FlowOptions {
  const Engine* engine = nullptr;
  std::string server_version;
  int64_t max_unary_reply_bytes = 0;
  // Refuses what is larger than that: FAILED_PRECONDITION, reason
  // REPLY_TOO_LARGE, before anything is computed.
  bool unary = true;
};

// A request that was found valid, with its price; holds a lease on the model.
struct PlannedExplanation {
  std::shared_ptr<const Plan> plan;
  EncodeOptions encode;
  Cost cost;  // reply_bytes as they are sent
  bool fits_unary = true;
  bool validate_only = false;
};

// Everything that can be refused before work. Fills what is known of the
// request for log and metrics.
absl::StatusOr<PlannedExplanation> PlanExplanation(
    const FlowOptions& options, const ValidatedRequest& request,
    std::shared_ptr<const Model> model, ExplanationMetrics& explained);

// Answers with the price and runs nothing.
absl::Status WriteCost(const PlannedExplanation& planned, ReplyWriter& writer);

// An explanation that is computed with others. What is referred to outlives
// `done`.
struct FlowMember {
  const PlannedExplanation& planned;
  const std::string& request_id;
  CancelToken cancel;
  ExplanationMetrics& explained;
  ReplyWriter& writer;
  // As BatchMember::done.
  std::function<void(const absl::Status& status)> done;
};

// Runs plans for the same model together on the calling thread and on `device`,
// as Engine::RunBatch. Fills the times
// of their stages; the time of computing is that of the batch, up to the
// member's own end.
void RunExplanations(const FlowOptions& options,
                     const std::vector<FlowMember>& members, int64_t device);

// Runs a plan on the calling thread and on `device`. Fills the times of its
// stages.
absl::Status RunExplanation(const FlowOptions& options,
                            const PlannedExplanation& planned,
                            const std::string& request_id,
                            const CancelToken& cancel,
                            ExplanationMetrics& explained, ReplyWriter& writer,
                            int64_t device);

}  // namespace limpid
