// SPDX-License-Identifier: Apache-2.0
//
// An explanation whose reply is one message: nobody reads it before it is
// whole, so that it can share a batch with others. Streams don't: what a reader
// takes slowly would hold up the batch.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/observe/metrics.h"
#include "server/rpc/explain_flow.h"
#include "server/schedule/worker_pool.h"

namespace limpid {

// Used by one thread at a time.
class UnaryWork final : public BatchWork {
 public:
  struct Parts {
    FlowOptions flow;
    PlannedExplanation planned;
    std::string request_id;
    CancelToken cancel;
    // What is known so far.
    ExplanationMetrics explained;
    std::shared_ptr<ReplyWriter> writer;
    // A worker begins.
    std::function<void()> on_start;
    // Told once how it has ended, when the lease has been given back.
    std::function<void(const absl::Status& status,
                       const ExplanationMetrics& explained)>
        on_end;
  };

  // `accepted`: since when it waits for a worker.
  UnaryWork(Parts parts, absl::Time accepted)
      : parts_(std::move(parts)), accepted_(accepted) {}

  // As Job::run.
  void Run(const absl::Status& admission, int64_t device);
  void RunWith(const std::vector<BatchWork*>& others, int64_t device) override;

 private:
  void Start();
  // Does nothing after the first time.
  void End(const absl::Status& status);

  Parts parts_;
  const absl::Time accepted_;
  bool ended_ = false;
};

}  // namespace limpid
