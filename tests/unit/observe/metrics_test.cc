// SPDX-License-Identifier: Apache-2.0
#include "server/observe/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "prometheus/text_serializer.h"

namespace limpid {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Text(const Metrics& metrics) {
  return prometheus::TextSerializer().Serialize(metrics.registry()->Collect());
}

TEST(MetricsTest, ExplanationsAreCountedAndTimed) {
  Metrics metrics("9");
  ExplanationMetrics e;
  e.model = "m";
  e.method = "alti";
  e.code = absl::StatusCode::kInvalidArgument;
  e.request = absl::Milliseconds(20);
  metrics.ExplanationEnded(e);
  e.code = absl::StatusCode::kOk;
  e.compute = absl::Milliseconds(10);
  e.num_tokens = 7;
  e.reconstruction_error = 2e-7;
  metrics.ExplanationEnded(e);
  const std::string text = Text(metrics);
  EXPECT_THAT(text, HasSubstr("limpid_requests_total{code=\"INVALID_ARGUMENT\","
                              "method=\"alti\",model=\"m\"} 1"));
  EXPECT_THAT(
      text, HasSubstr("limpid_request_duration_seconds_count{model=\"m\"} 2"));
  EXPECT_THAT(
      text, HasSubstr("limpid_compute_duration_seconds_count{model=\"m\"} 1"));
  EXPECT_THAT(text, HasSubstr("limpid_input_tokens_sum{model=\"m\"} 7"));
  EXPECT_THAT(text, HasSubstr("limpid_reconstruction_error_ratio_bucket"));
  EXPECT_THAT(text, HasSubstr("limpid_build_info{version=\"9\"} 1"));
  EXPECT_THAT(text, Not(HasSubstr("limpid_queue_duration_seconds_count")));
}

TEST(MetricsTest, GaugesFollow) {
  Metrics metrics("9");
  metrics.AddInFlight(2);
  metrics.AddInFlight(-1);
  metrics.OnQueueSize(4);
  metrics.OnBatch(3);
  metrics.SetResidentBytes("m", "cpu", 12);
  metrics.SetModelState("m", ModelState::kLoading);
  metrics.SetModelState("m", ModelState::kReady);
  metrics.WeightsCopied("cuda:0", 34);
  metrics.LoadEnded("m", absl::Seconds(2), absl::StatusCode::kDataLoss);
  const std::string text = Text(metrics);
  EXPECT_THAT(text, HasSubstr("limpid_requests_in_flight 1"));
  EXPECT_THAT(text, HasSubstr("limpid_queue_size 4"));
  EXPECT_THAT(text, HasSubstr("limpid_batch_size_sum 3"));
  EXPECT_THAT(text, HasSubstr("limpid_model_resident_bytes{device=\"cpu\","
                              "model=\"m\"} 12"));
  EXPECT_THAT(text, HasSubstr("limpid_model_state{model=\"m\",state="
                              "\"ready\"} 1"));
  EXPECT_THAT(text, HasSubstr("limpid_model_state{model=\"m\",state="
                              "\"loading\"} 0"));
  EXPECT_THAT(text, HasSubstr("limpid_weights_copied_bytes_total{device="
                              "\"cuda:0\"} 34"));
  EXPECT_THAT(text, HasSubstr("code=\"DATA_LOSS\""));
}

TEST(MetricsTest, RpcCodesAreSpelledAsGoSpellsThem) {
  EXPECT_EQ(GoCodeName(absl::StatusCode::kOk), "OK");
  EXPECT_EQ(GoCodeName(absl::StatusCode::kCancelled), "Canceled");
  EXPECT_EQ(GoCodeName(absl::StatusCode::kDeadlineExceeded),
            "DeadlineExceeded");
  EXPECT_EQ(CodeName(absl::StatusCode::kDeadlineExceeded), "DEADLINE_EXCEEDED");
}

}  // namespace
}  // namespace limpid
