// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <set>

#include "client/bench/load.h"
#include "client/bench/report.h"
#include "client/bench/workload.h"
#include "client/error_report.h"

namespace limpid::bench {
namespace {

WorkloadOptions TwoModels() {
  WorkloadOptions options;
  for (const char* name : {"a", "b"}) {
    v1::Model& model = options.models.emplace_back();
    model.set_name(name);
    model.set_digest(std::string("digest of ") + name);
    model.set_vocabulary_size(5);
  }
  options.lengths = {2, 9};
  options.method = "alti";
  return options;
}

Explanation GoodReply(const v1::ExplainRequest& request) {
  Explanation reply;
  reply.header.set_model_digest("digest of " + request.model());
  for (const int64_t id : request.input().tokens().ids()) {
    reply.header.add_tokens()->set_id(id);
  }
  reply.summary.add_layers();
  reply.summary.set_max_reconstruction_error(1e-6);
  reply.summary.mutable_times()->mutable_compute()->set_nanos(1000);
  return reply;
}

TEST(WorkloadTest, MixesModelsAndLengths) {
  const Workload workload(TwoModels());
  std::mt19937_64 random(1);
  std::set<std::pair<std::string, int>> kinds;
  std::set<std::string> inputs;
  for (int i = 0; i < 100; ++i) {
    const v1::ExplainRequest request = workload.Next(random);
    EXPECT_EQ(request.method(), "alti");
    for (const int64_t id : request.input().tokens().ids()) {
      EXPECT_GE(id, 0);
      EXPECT_LT(id, 5);
    }
    kinds.insert({request.model(), request.input().tokens().ids_size()});
    inputs.insert(request.SerializeAsString());
  }
  EXPECT_EQ(kinds.size(), 4u);
  EXPECT_GT(inputs.size(), 50u);
}

TEST(WorkloadTest, EveryKindOfWrongReplyIsSeen) {
  const Workload workload(TwoModels());
  std::mt19937_64 random(1);
  const v1::ExplainRequest request = workload.Next(random);
  const Explanation good = GoodReply(request);
  EXPECT_EQ(workload.Mistake(request, good), "");
  Explanation other_model = good;
  other_model.header.set_model_digest("0");
  EXPECT_NE(workload.Mistake(request, other_model), "");
  Explanation shorter = good;
  shorter.header.mutable_tokens()->RemoveLast();
  EXPECT_NE(workload.Mistake(request, shorter), "");
  Explanation other_input = good;
  other_input.header.mutable_tokens(0)->set_id(17);
  EXPECT_NE(workload.Mistake(request, other_input), "");
  Explanation no_layers = good;
  no_layers.summary.clear_layers();
  EXPECT_NE(workload.Mistake(request, no_layers), "");
  for (const double residual : {2e-4, std::nan("")}) {
    Explanation off = good;
    off.summary.set_max_reconstruction_error(residual);
    EXPECT_NE(workload.Mistake(request, off), "");
  }
  Explanation overflown = good;
  overflown.summary.set_num_non_finite(1);
  EXPECT_NE(workload.Mistake(request, overflown), "");
}

TEST(LoadTest, ClosedLoopsKeepOneRequestPerClientOut) {
  const Workload workload(TwoModels());
  LoadOptions options;
  options.clients = 3;
  options.duration = absl::Milliseconds(50);
  std::atomic<int> out[3] = {};
  std::atomic<bool> overlap{false};
  const LoadResult result = RunLoad(
      options, workload, [&](int client, const v1::ExplainRequest& request) {
        if (++out[client] > 1) overlap = true;
        --out[client];
        return GoodReply(request);
      });
  EXPECT_FALSE(overlap);
  EXPECT_GT(result.num_sent, 3);
  const Summary summary = Summarize(result);
  EXPECT_EQ(summary.num_ok, result.num_sent);
  EXPECT_TRUE(summary.Passed());
}

TEST(LoadTest, OpenLoopsSendAsManyAsTheRateSays) {
  const Workload workload(TwoModels());
  LoadOptions options;
  options.clients = 2;
  options.duration = absl::Milliseconds(500);
  options.rate = 2000;
  options.max_in_flight = 4;
  const LoadResult result =
      RunLoad(options, workload, [&](int, const v1::ExplainRequest& request) {
        return GoodReply(request);
      });
  // 1000 expected, with a standard deviation of 32.
  EXPECT_NEAR(static_cast<double>(result.num_sent), 1000, 160);
  EXPECT_EQ(result.samples.size(), static_cast<size_t>(result.num_sent));
}

TEST(LoadTest, InterruptsEndIt) {
  const Workload workload(TwoModels());
  LoadOptions options;
  options.duration = absl::Hours(1);
  const LoadResult result = RunLoad(
      options, workload,
      [&](int, const v1::ExplainRequest&) -> absl::StatusOr<Explanation> {
        return absl::CancelledError("interrupt");
      });
  EXPECT_EQ(result.num_sent, options.clients);
}

TEST(SummaryTest, CountsByKind) {
  LoadResult result;
  result.took = absl::Seconds(2);
  result.num_sent = 6;
  Sample good;
  good.latency = absl::Milliseconds(5);
  good.service = absl::Milliseconds(4);
  good.compute = absl::Milliseconds(3);
  Sample wrong = good;
  wrong.mistake = "residual 1";
  Sample damaged;
  damaged.code = absl::StatusCode::kDataLoss;
  damaged.mistake = "checksum";
  Sample refused;
  refused.code = absl::StatusCode::kResourceExhausted;
  refused.service = absl::Milliseconds(7);
  refused.retry_info = true;
  Sample silent = refused;
  silent.retry_info = false;
  result.samples = {good, wrong, damaged, refused, silent};
  const Summary summary = Summarize(result);
  EXPECT_EQ(summary.num_ok, 1);
  EXPECT_EQ(summary.num_wrong, 2);
  EXPECT_EQ(summary.num_lost, 1);
  EXPECT_EQ(summary.errors.at("RESOURCE_EXHAUSTED"), 2);
  EXPECT_EQ(summary.num_refused_with_retry, 1);
  EXPECT_DOUBLE_EQ(summary.refusal.max, 7);
  EXPECT_DOUBLE_EQ(summary.latency.p99, 5);
  EXPECT_DOUBLE_EQ(summary.overhead.p50, 1);
  EXPECT_DOUBLE_EQ(summary.throughput, 0.5);
  EXPECT_FALSE(summary.Passed());
}

TEST(SummaryTest, InternalErrorsFailIt) {
  LoadResult result;
  result.took = absl::Seconds(1);
  result.num_sent = 2;
  result.samples.resize(2);
  EXPECT_TRUE(Summarize(result).Passed());
  result.samples[1].code = absl::StatusCode::kInternal;
  EXPECT_FALSE(Summarize(result).Passed());
}

TEST(SummaryTest, PercentilesAreValuesThatOccurred) {
  std::vector<absl::Duration> values;
  for (int i = 100; i >= 1; --i) values.push_back(absl::Milliseconds(i));
  const Percentiles p = PercentilesOf(values);
  EXPECT_DOUBLE_EQ(p.p50, 50);
  EXPECT_DOUBLE_EQ(p.p95, 95);
  EXPECT_DOUBLE_EQ(p.p99, 99);
  EXPECT_DOUBLE_EQ(p.max, 100);
}

}  // namespace
}  // namespace limpid::bench
