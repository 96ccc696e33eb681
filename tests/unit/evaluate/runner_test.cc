// SPDX-License-Identifier: Apache-2.0
//
// Whole evaluations against a model made up for the test, without a server.
#include "client/evaluate/runner.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "client/error_report.h"
#include "client/evaluate/grounding.h"
#include "client/evaluate/parallel.h"
#include "client/evaluate/report.h"
#include "client/tensor_codec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace limpid::evaluate {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

v1::Tensor Floats(const std::string& name, const std::vector<float>& values) {
  v1::Tensor tensor;
  tensor.mutable_header()->set_name(name);
  tensor.mutable_header()->add_shape(static_cast<int64_t>(values.size()));
  tensor.mutable_header()->set_data_type(v1::DATA_TYPE_FLOAT32);
  tensor.mutable_header()->set_layout(v1::TENSOR_LAYOUT_ROW_MAJOR);
  const auto bytes = values.size() * sizeof(float);
  tensor.mutable_header()->set_num_bytes(static_cast<int64_t>(bytes));
  tensor.set_data(values.data(), bytes);
  tensor.mutable_header()->set_crc32(Crc32(tensor.data()));
  return tensor;
}

// Knows the answer with integrated-gradients and with form full, points at the
// first token with form state.
class FakeModel {
 public:
  FakeModel() {
    model_.set_name("fake");
    model_.set_architecture("fake");
    for (const char* method : {"raw-attention", "integrated-gradients"}) {
      model_.add_methods(method);
      methods_.emplace_back().set_name(method);
    }
    methods_[1].add_options()->set_name("steps");
    model_.add_forms("state");
    model_.add_forms("full");
  }

  absl::StatusOr<Explanation> Explain(const v1::ExplainRequest& request) {
    ++calls_;
    if (calls_ > fail_after_) return absl::UnavailableError("gone");
    const std::string& text = request.input().text();
    Explanation reply;
    for (size_t i = 0; i < text.size(); ++i) {
      reply.header.add_tokens()->set_id(text[i]);
    }
    if (request.output().logits()) {
      reply.tensors["logits"] = Floats("logits", {1, 2});
    }
    const bool state = request.attention().form() == v1::ATTENTION_FORM_STATE;
    std::vector<float> map(text.size(), 0.0F);
    const size_t key = text.find(text.back());
    map[state ? (key == 0 ? 2 : 0) : key + 1] = 1;
    reply.tensors["attribution"] = Floats("attribution", map);
    EXPECT_EQ(request.options().has_steps(),
              request.method() == "integrated-gradients");
    return reply;
  }

  absl::StatusOr<Results> Run(ScoreStore& store, int parallel = 3) {
    GroundingOptions grounding;
    grounding.items = 40;
    const auto protocol = MakeGrounding(grounding);
    RunOptions options;
    options.parallel = parallel;
    options.resamples = 300;
    options.method_options.set_steps(16);
    return RunProtocol(
        *protocol, model_, methods_,
        [this](const v1::ExplainRequest& request) { return Explain(request); },
        options, store,
        [this](int64_t done, int64_t total) {
          EXPECT_LE(done, total);
          EXPECT_GE(done, last_done_);
          last_done_ = done;
        });
  }

  v1::Model model_;
  std::vector<v1::Method> methods_;
  std::atomic<int> calls_ = 0;
  int fail_after_ = 1'000'000;
  int64_t last_done_ = 0;
};

std::unique_ptr<ScoreStore> NoStore() {
  return *ScoreStore::Open("", "settings");
}

TEST(RunnerTest, JudgesEveryRowAndShufflesTheBest) {
  FakeModel model;
  const auto results = model.Run(*NoStore());
  ASSERT_TRUE(results.ok()) << results.status();
  std::vector<std::string> keys;
  for (const RowResult& row : results->rows) keys.push_back(row.row.key);
  EXPECT_THAT(keys, ::testing::ElementsAre(
                        "random", "integrated-gradients", "raw-attention-state",
                        "raw-attention-full", "shuffled-integrated-gradients"));
  EXPECT_EQ(results->best, 1u);
  EXPECT_EQ(results->rows[1].figures[0].value, 1);
  EXPECT_EQ(results->rows[2].figures[0].value, 0);
  EXPECT_EQ(results->rows[3].figures[0].value, 1);
  ASSERT_EQ(results->differences.size(), 1u);
  EXPECT_EQ(results->differences[0].method, "raw-attention");
  EXPECT_EQ(results->differences[0].figures[0].low, 1);
  // The control is like random, and both are far from the best.
  EXPECT_LT(results->rows[0].figures[0].value, 0.5);
  EXPECT_LT(results->rows[4].figures[0].value, 0.5);
  EXPECT_TRUE(results->rows[4].figures[0].Apart(results->rows[1].figures[0]));
  EXPECT_FALSE(results->rows[4].figures[0].Apart(results->rows[0].figures[0]));
  EXPECT_EQ(model.last_done_, 40 * 6);
  // Readings, three methods; the control asks nothing again.
  EXPECT_EQ(model.calls_, 40 * 4);
}

TEST(RunnerTest, ThreadsDoNotChangeTheResults) {
  FakeModel one, many;
  const auto first = one.Run(*NoStore(), 1), second = many.Run(*NoStore(), 7);
  ASSERT_TRUE(first.ok() && second.ok());
  for (size_t r = 0; r < first->rows.size(); ++r) {
    EXPECT_EQ(first->rows[r].figures[1].value,
              second->rows[r].figures[1].value);
    EXPECT_EQ(first->rows[r].figures[1].low, second->rows[r].figures[1].low);
  }
}

TEST(RunnerTest, RowsThatAModelLacksAreNamed) {
  FakeModel model;
  model.model_.mutable_forms()->RemoveLast();
  const RowPlan plan = PlanRows(model.model_);
  EXPECT_EQ(plan.rows.size(), 3u);
  std::set<std::string> skipped;
  for (const SkippedRow& row : plan.skipped) skipped.insert(row.title);
  EXPECT_TRUE(skipped.contains("raw-attention, form full"));
  EXPECT_TRUE(skipped.contains("alti"));
  model.model_.clear_methods();
  EXPECT_EQ(model.Run(*NoStore()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    std::string pattern = ::testing::TempDir() + "/evaluate-XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~StoreTest() override { fs::remove_all(folder_); }
  std::string folder_;
};

TEST_F(StoreTest, AnInterruptedRunGoesOnWhereItWas) {
  FakeModel whole;
  const auto expected = whole.Run(*NoStore());
  ASSERT_TRUE(expected.ok());
  FakeModel broken;
  broken.fail_after_ = 40 + 100;
  EXPECT_EQ(broken.Run(**ScoreStore::Open(folder_, "s")).status().code(),
            absl::StatusCode::kUnavailable);
  // A line that was being written when the power went.
  std::ofstream(folder_ + "/items/raw-attention-full.jsonl", std::ios::app)
      << R"({"item":39,"sco)";
  FakeModel rest;
  const auto results = rest.Run(**ScoreStore::Open(folder_, "s"));
  ASSERT_TRUE(results.ok()) << results.status();
  // Readings, what was missing of the third method, and the control, which no
  // longer finds its method's answers in memory; up to two more in flight.
  EXPECT_LE(rest.calls_, 40 + 22 + 40);
  for (size_t r = 0; r < expected->rows.size(); ++r) {
    EXPECT_EQ(results->rows[r].figures[1].value,
              expected->rows[r].figures[1].value);
    EXPECT_EQ(results->rows[r].figures[1].high,
              expected->rows[r].figures[1].high);
  }
  FakeModel again;
  ASSERT_TRUE(again.Run(**ScoreStore::Open(folder_, "s")).ok());
  EXPECT_EQ(again.calls_, 40);  // readings only
}

TEST_F(StoreTest, AnotherEvaluationsFolderIsRefused) {
  ASSERT_TRUE(ScoreStore::Open(folder_, "one").ok());
  const auto other = ScoreStore::Open(folder_, "two");
  EXPECT_EQ(other.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorReport(other.status()).reason, "OTHER_EVALUATION");
}

TEST(ReportTest, SaysWhatWasMeasuredAndWhatIsMissing) {
  FakeModel model;
  const auto results = model.Run(*NoStore());
  ASSERT_TRUE(results.ok());
  GroundingOptions grounding;
  grounding.items = 40;
  const auto protocol = MakeGrounding(grounding);
  const ReportContext context{"fake", "digest", "fake", 0, 300};
  const std::string table = ResultsMarkdown(*protocol, *results, context);
  EXPECT_THAT(table, HasSubstr("| integrated-gradients | **1.000** [1.000, "
                               "1.000] | 1.00 [1.00, 1.00] |"));
  EXPECT_THAT(table, HasSubstr("No row alti: not offered for fake."));
  EXPECT_THAT(table, HasSubstr("and random touch"));
  const auto json =
      nlohmann::json::parse(ResultsJson(*protocol, *results, context));
  EXPECT_EQ(json["best"], "integrated-gradients");
  EXPECT_EQ(json["control_like_random"], true);
  EXPECT_EQ(json["full_minus_state"][0]["figures"]["precision_at_1"]["value"],
            1);
  EXPECT_EQ(json["rows"][3]["form"], "full");
  EXPECT_EQ(json["rows"][3]["figures"]["precision_at_1"]["value"], 1);
  const std::string svg = IntervalsSvg(*protocol, *results, context);
  EXPECT_THAT(svg, HasSubstr("raw-attention, form full"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_EQ(CurvesSvg(*protocol, *results), "");
}

TEST(ReportTest, AControlThatIsNotRandomIsSaidSo) {
  FakeModel model;
  auto results = *model.Run(*NoStore());
  results.rows.back().figures[0] = {1, 0.99, 1};
  GroundingOptions grounding;
  grounding.items = 40;
  const auto protocol = MakeGrounding(grounding);
  EXPECT_THAT(ResultsMarkdown(*protocol, results, {}),
              HasSubstr("differs from random in precision@1"));
}

TEST(ForEachInParallelTest, StopsAfterTheFirstError) {
  std::atomic<int> turns = 0;
  const absl::Status status = ForEachInParallel(
      10000, 4,
      [&](size_t i) {
        ++turns;
        return i == 20 ? absl::AbortedError("x") : absl::OkStatus();
      },
      [](size_t) {});
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_LT(turns, 10000);
}

}  // namespace
}  // namespace limpid::evaluate
