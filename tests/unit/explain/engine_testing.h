// SPDX-License-Identifier: Apache-2.0
//
// An engine with a small model, for tests of what it answers.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

#include "server/explain/engine.h"
#include "tests/support/collecting_sink.h"

namespace limpid::testing {

inline std::string CheckpointFolder(const std::string& name) {
  return std::string(LIMPID_TEST_DATA) + "/checkpoints/" + name;
}

// A model with 2 layers, E = 20, D = 40, V = 37 and no tokenizer.
class EngineTest : public ::testing::Test {
 protected:
  EngineTest() {
    EngineOptions options;
    options.device = "cpu";
    options.max_tokens = 100;
    auto engine = Engine::Create(options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    auto model = engine_->Load("tied", CheckpointFolder("mamba-tied"));
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    request_.input = TokenInput{{22, 9, 36, 35, 2, 7, 7, 6, 21, 12, 17, 8, 35}};
  }

  CollectingSink Explain(const ExplainRequest& request) {
    CollectingSink sink;
    auto plan = engine_->MakePlan(request, model_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    if (!plan.ok()) return sink;
    const absl::Status status = engine_->Run(**plan, sink, CancelToken());
    EXPECT_TRUE(status.ok()) << status;
    int64_t bytes = 0;
    for (const auto& [name, tensor] : sink.tensors) {
      bytes += static_cast<int64_t>(tensor.bytes.size());
    }
    EXPECT_LE(bytes, (*plan)->cost().reply_bytes);
    EXPECT_EQ(sink.summary->num_tensors,
              static_cast<int64_t>(sink.tensors.size()));
    return sink;
  }

  std::set<std::string> ViolatedFields(const ExplainRequest& request) {
    const absl::Status status = engine_->MakePlan(request, model_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    std::set<std::string> fields;
    for (const FieldViolation& violation : GetErrorDetails(status).violations) {
      fields.insert(violation.field);
    }
    return fields;
  }

  std::string Reason(const ExplainRequest& request, absl::StatusCode code) {
    const absl::Status status = engine_->MakePlan(request, model_).status();
    EXPECT_EQ(status.code(), code) << status;
    return GetErrorDetails(status).reason;
  }

  std::unique_ptr<Engine> engine_;
  std::shared_ptr<const Model> model_;
  ExplainRequest request_;
};

}  // namespace limpid::testing
