// SPDX-License-Identifier: Apache-2.0
//
// Agreement with other people's implementations, in float64 and float32.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "server/attribution/gradient.h"
#include "server/reduce/sinks.h"
#include "tests/support/golden.h"

namespace limpid {
namespace {

using testing::GoldenCase;
using testing::RelativeError;

// Tolerances of relative L2 errors; logits are compared by the largest one.
struct Tolerance {
  double matrix, logits, gradient, integrated;
};
Tolerance ToleranceOf(at::ScalarType dtype) {
  if (dtype == at::kDouble) return {1e-9, 1e-9, 1e-9, 1e-9};
  return {2e-5, 1e-4, 2e-4, 5e-4};
}
// Golden matrices that are stored as float32.
constexpr double kStoredSingle = 2e-6;

class GoldenTest : public ::testing::TestWithParam<
                       std::tuple<std::string, at::ScalarType>> {
 protected:
  GoldenTest()
      : golden_(std::get<0>(GetParam())),
        dtype_(std::get<1>(GetParam())),
        tolerance_(ToleranceOf(dtype_)),
        network_(golden_.Load(dtype_)) {}

  static at::Tensor TokensOf(const std::vector<int64_t>& ids) {
    return at::tensor(ids, at::kLong).unsqueeze(0);
  }
  static at::Tensor Entries(const BlockAttention& attention,
                            const MatrixForm& form, RowRange rows) {
    ChannelCollector collector({}, attention, rows);
    EXPECT_TRUE(attention.Visit(form, rows, collector, CancelToken()).ok());
    return collector.Finish();
  }
  // `name` under `prefix` is compared if the case has it.
  void Compare(const std::string& name, const at::Tensor& actual,
               double tolerance) {
    if (!golden_.Has(name)) return;
    const at::Tensor expected = golden_.Expected(name);
    ASSERT_EQ(actual.sizes(), expected.sizes()) << name;
    const double error = RelativeError(actual, expected);
    EXPECT_LE(error, tolerance) << name;
    largest_ = std::max(largest_, error);
    ++compared_;
  }
  void CompareLayers(const std::string& prefix,
                     const std::vector<int64_t>& ids);

  GoldenCase golden_;
  at::ScalarType dtype_;
  Tolerance tolerance_;
  std::unique_ptr<const Network> network_;
  double largest_ = 0;
  int compared_ = 0;
};

void GoldenTest::CompareLayers(const std::string& prefix,
                               const std::vector<int64_t>& ids) {
  const c10::NoGradGuard no_gradients;
  const int64_t length = static_cast<int64_t>(ids.size());
  const RowRange all{0, length};
  const double stored = std::max(tolerance_.matrix, kStoredSingle);
  const auto logits = network_->Forward(
      network_->Embed({TokensOf(ids), at::Tensor()}), {},
      [&](int64_t layer, int64_t, const BlockAttention& attention) {
        const std::string at_layer =
            absl::StrCat(prefix, "layers.", layer, ".");
        const BlockMap map = attention.Map({});
        Compare(at_layer + "v", map.value.t(), tolerance_.matrix);
        Compare(at_layer + "y", map.output.t(), tolerance_.matrix);
        Compare(at_layer + "beta", map.bias.t(), tolerance_.matrix);
        Compare(at_layer + "alpha", Entries(attention, {}, all),
                length > 20 ? stored : tolerance_.matrix);
        Compare(at_layer + "state",
                Entries(attention, {AttentionForm::kState, false}, all),
                length > 20 ? stored : tolerance_.matrix);
        // The authors' names for their ablations, and the row that they
        // compute by itself. Theirs are float32 throughout.
        const std::string authors =
            absl::StrCat(prefix, "upstream.", layer, ".");
        constexpr double kTheirs = 2e-5;
        const std::map<std::string, AttentionForm> names = {
            {"finalMat", AttentionForm::kUpstream},
            {"withoutConv", AttentionForm::kNoConv},
            {"withoutGate", AttentionForm::kNoGate},
            {"withoutAct", AttentionForm::kNoActivation}};
        for (const auto& [name, form] : names) {
          Compare(authors + name, Entries(attention, {form, false}, all),
                  kTheirs);
        }
        Compare(authors + "row.finalMat",
                Entries(attention, {AttentionForm::kUpstream, false},
                        {length - 1, length})
                    .select(1, 0),
                kTheirs);
        return absl::OkStatus();
      },
      CancelToken());
  ASSERT_TRUE(logits.ok()) << logits.status();
  const at::Tensor expected = golden_.Expected(prefix + "logits");
  const double error = (((*logits)[0].to(at::kDouble) - expected).abs().max() /
                        expected.abs().max())
                           .item()
                           .toDouble();
  EXPECT_LE(error, tolerance_.logits);
}

TEST_P(GoldenTest, LogitsAndMatrices) {
  CompareLayers("", golden_.token_ids());
  for (const auto& [name, ids] : golden_.extra()) {
    CompareLayers(absl::StrCat("extra.", name, "."), ids);
  }
  EXPECT_GT(compared_, 0);
  std::printf("figure: %s, %s: %d tensors, largest relative error %.1e\n",
              std::get<0>(GetParam()).c_str(),
              dtype_ == at::kDouble ? "float64" : "float32", compared_,
              largest_);
}

TEST_P(GoldenTest, Gradients) {
  ResolvedTarget target;
  target.id = golden_.target();
  const at::Tensor embeddings =
      network_->Embed({TokensOf(golden_.token_ids()), at::Tensor()});
  Compare("embeddings", embeddings[0], tolerance_.matrix);
  const auto at_input = GradientOfTarget(*network_, embeddings,
                                         golden_.position(), target,
                                         CancelToken());
  ASSERT_TRUE(at_input.ok()) << at_input.status();
  Compare("grad.embeddings", at_input->gradient[0], tolerance_.gradient);
  EXPECT_EQ(compared_, 2);
}

TEST_P(GoldenTest, IntegratedGradients) {
  // Near the zero baseline the gradient is enormous and float32 can't follow
  // it in every case; the golden tolerances say how far it should.
  MethodOptions options;
  options.steps = 32;
  options.rule = IntegrationRule::kMidpoint;
  ResolvedTarget target;
  target.id = golden_.target();
  const auto attribution =
      FindMethod("integrated-gradients")
          ->make({*network_,
                  network_->Embed({TokensOf(golden_.token_ids()), at::Tensor()}),
                  golden_.position(), options, int64_t{1} << 24});
  const auto result = attribution->Finish(
      target, [](int64_t, int64_t) { return absl::OkStatus(); },
      CancelToken());
  ASSERT_TRUE(result.ok()) << result.status();
  Compare("ig.embeddings", result->elementwise, tolerance_.integrated);
  EXPECT_EQ(compared_, 1);
  const at::Tensor ends = golden_.Expected("ig.endpoints");
  const double difference = (ends[1] - ends[0]).item().toDouble();
  EXPECT_NEAR(*result->completeness_error,
              golden_.Expected("ig.completeness_gap").item().toDouble(),
              tolerance_.integrated * std::abs(difference));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GoldenTest,
    ::testing::Combine(::testing::ValuesIn(GoldenCase::Names()),
                       ::testing::Values(at::kDouble, at::kFloat)),
    [](const ::testing::TestParamInfo<GoldenTest::ParamType>& info) {
      std::string name = std::get<0>(info.param);
      std::replace(name.begin(), name.end(), '-', '_');
      return name +
             (std::get<1>(info.param) == at::kDouble ? "Float64" : "Float32");
    });

}  // namespace
}  // namespace limpid
