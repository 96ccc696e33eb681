// SPDX-License-Identifier: Apache-2.0
//
// For every listed architecture: every method is its formula, as the naive
// loops of tests/reference compute it in double precision from the entries of
// the layers' matrices, and from gradients and scores of one sequence at a
// time.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "server/attribution/baseline.h"
#include "server/attribution/gradient.h"
#include "server/reduce/sinks.h"
#include "tests/reference/methods.h"
#include "tests/support/random_network.h"
#include "tests/support/run_method.h"

namespace limpid {
namespace {

using reference::Matrix;
using reference::Vector;
using testing::MethodCall;
using testing::TinyCase;

Vector ToVector(const at::Tensor& tensor) {
  const at::Tensor packed = tensor.to(at::kDouble).contiguous();
  const double* const data = packed.const_data_ptr<double>();
  return Vector(data, data + packed.numel());
}

Matrix ToMatrix(const at::Tensor& tensor) {
  Matrix rows;
  for (int64_t i = 0; i < tensor.size(0); ++i) {
    rows.push_back(ToVector(tensor[i]));
  }
  return rows;
}

at::Tensor ToTensor(const Matrix& matrix) {
  std::vector<at::Tensor> rows;
  for (const Vector& row : matrix) {
    rows.push_back(at::tensor(row, at::kDouble));
  }
  return at::stack(rows);
}

constexpr ChannelReduction kReductions[] = {
    ChannelReduction::kMeanAbs, ChannelReduction::kMean,
    ChannelReduction::kMeanPos, ChannelReduction::kPosMean,
    ChannelReduction::kMax,     ChannelReduction::kMin,
    ChannelReduction::kL2,      ChannelReduction::kWnorm};

class MethodsTest : public ::testing::TestWithParam<TinyCase> {
 protected:
  MethodsTest()
      : network_(testing::MakeRandomNetwork(GetParam(), at::kDouble, 17)) {
    input_ = testing::RandomInput(
        *network_, 1, testing::LengthsOf(*network_, {9}).front(), 21);
    e_ = network_->Embed(input_);
    // Not the last position: what follows must not matter.
    call_.position = network_->info().modality == Modality::kImage
                         ? network_->info().class_token
                         : e_.size(1) - 3;
    call_.target = {1, 2};
  }

  int64_t length() const { return e_.size(1); }
  ExplainedPoint point() const { return PointOf(*network_, call_); }
  // How many positions the explained one depends on.
  int64_t seen() const {
    return network_->info().causal ? call_.position + 1 : length();
  }
  // The forms full and, where there is one, state.
  std::vector<MatrixForm> Forms() const {
    std::vector<MatrixForm> forms = {{}};
    const auto& all = network_->info().forms;
    if (std::count(all.begin(), all.end(), AttentionForm::kState) > 0) {
      forms.push_back({AttentionForm::kState, false});
    }
    return forms;
  }
  std::vector<int64_t> StartLayers() const {
    return {0, network_->info().num_layers - 1};
  }

  // All that the formulas of attention methods are made of.
  reference::Blocks Blocks() const {
    reference::Blocks blocks;
    const auto gradients =
        GradientsOfTargets(*network_, e_, {point()}, Differentiation::kFull,
                           /*by_block_outputs=*/true, CancelToken());
    EXPECT_TRUE(gradients.ok()) << gradients.status();
    const auto visit = [&](int64_t layer, int64_t,
                           const BlockAttention& attention) -> absl::Status {
      const RowRange all{0, length()};
      ChannelCollector collector({}, attention, all);
      LIMPID_RETURN_IF_ERROR(
          attention.Visit(call_.form, all, collector, CancelToken()));
      const at::Tensor entries = collector.Finish();
      const BlockMap map = attention.Map(call_.form);
      reference::Block block;
      for (int64_t c = 0; c < entries.size(0); ++c) {
        block.alpha.push_back(ToMatrix(entries[c]));
      }
      block.value = ToMatrix(map.value);
      if (map.direct.defined()) block.direct = ToMatrix(map.direct);
      block.output = ToMatrix(map.output);
      block.weight = ToMatrix(attention.Projection().weight);
      const at::Tensor& bias = attention.Projection().bias;
      if (bias.defined()) block.weight_bias = ToVector(bias);
      block.stream = ToMatrix(attention.Stream());
      block.gradient = ToMatrix(gradients->front().block_outputs[layer][0]);
      blocks.push_back(std::move(block));
      return absl::OkStatus();
    };
    EXPECT_TRUE(network_->Forward(e_, {0}, visit, CancelToken()).ok());
    return blocks;
  }

  AttributionResult Run(const std::string& method) {
    call_.method = method;
    return RunMethod(*network_, input_, call_);
  }
  // `actual` must be `expected` but for rounding, relative to its largest
  // value.
  void Expect(const at::Tensor& actual, const Vector& expected,
              const std::string& what = "", double tolerance = 1e-9) {
    const Vector values = ToVector(actual);
    ASSERT_EQ(values.size(), expected.size()) << call_.method;
    double scale = 1e-300, error = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_TRUE(std::isfinite(values[i])) << call_.method << " " << what;
      scale = std::max(scale, std::abs(expected[i]));
      error = std::max(error, std::abs(values[i] - expected[i]));
    }
    EXPECT_LE(error / scale, tolerance)
        << call_.method << " " << what << ", form " << FormName(call_.form.form)
        << ", reduction "
        << (call_.reduction ? ReductionName(*call_.reduction) : "");
  }

  Matrix GradientAt(const Matrix& embeddings) const {
    const auto gradients = GradientsOfTargets(
        *network_, ToTensor(embeddings).unsqueeze(0), {point()},
        Differentiation::kFull, /*by_block_outputs=*/false, CancelToken());
    EXPECT_TRUE(gradients.ok()) << gradients.status();
    return ToMatrix(gradients->front().gradient[0]);
  }
  double Target(const absl::StatusOr<at::Tensor>& scores) const {
    EXPECT_TRUE(scores.ok()) << scores.status();
    return TargetScore((*scores)[0][0], call_.target).item().toDouble();
  }
  double ScoreAt(const Matrix& embeddings) const {
    return Target(network_->Forward(ToTensor(embeddings).unsqueeze(0),
                                    {point().readout}, nullptr, CancelToken()));
  }

  // Baselines that the network takes.
  std::vector<Baseline> Baselines() const {
    std::vector<Baseline> baselines(1);
    if (network_->info().modality == Modality::kImage) {
      baselines.emplace_back().kind = Baseline::Kind::kBlur;
      return baselines;
    }
    baselines.emplace_back().kind = Baseline::Kind::kMean;
    baselines.emplace_back().kind = Baseline::Kind::kToken;
    baselines.back().token_id = 1;
    baselines.emplace_back().kind = Baseline::Kind::kTokens;
    for (int64_t i = 0; i < length(); ++i) {
      baselines.back().token_ids.push_back(i % 3);
    }
    return baselines;
  }
  at::Tensor Embedded(const Baseline& baseline) const {
    return BaselineEmbeddings({*network_,
                               e_,
                               input_.pixels,
                               {call_.position},
                               call_.form,
                               ChannelReduction::kMeanAbs,
                               call_.options},
                              baseline);
  }

  std::unique_ptr<const Network> network_;
  NetworkInput input_;
  at::Tensor e_;  // [1, L, E]
  MethodCall call_;
};

TEST_P(MethodsTest, RawAttention) {
  for (const MatrixForm& form : Forms()) {
    call_.form = form;
    const reference::Blocks blocks = Blocks();
    for (const ChannelReduction reduction : kReductions) {
      call_.reduction = reduction;
      for (const int64_t start : StartLayers()) {
        call_.options.start_layer = start;
        Expect(Run("raw-attention").values,
               reference::RawAttention(blocks, reduction, call_.options,
                                       call_.position));
      }
    }
  }
}

TEST_P(MethodsTest, AttentionRollout) {
  for (const MatrixForm& form : Forms()) {
    call_.form = form;
    const reference::Blocks blocks = Blocks();
    for (const ChannelReduction reduction : kReductions) {
      call_.reduction = reduction;
      for (const int64_t start : StartLayers()) {
        for (const double residual : {1.0, 2.5}) {
          call_.options.start_layer = start;
          call_.options.residual_weight = residual;
          Expect(Run("attention-rollout").values,
                 reference::AttentionRollout(blocks, reduction, call_.options,
                                             call_.position));
        }
      }
    }
  }
}

TEST_P(MethodsTest, AttentionGradient) {
  for (const MatrixForm& form : Forms()) {
    call_.form = form;
    const reference::Blocks blocks = Blocks();
    for (const ChannelReduction reduction : kReductions) {
      call_.reduction = reduction;
      for (const auto axis : {GradientAxis::kSource, GradientAxis::kTarget}) {
        for (const auto gradient :
             {GradientReduction::kMean, GradientReduction::kMaxRelu}) {
          call_.options.axis = axis;
          call_.options.gradient_reduction = gradient;
          call_.options.start_layer =
              StartLayers()[reduction == ChannelReduction::kL2];
          call_.options.residual_weight = 0.5;
          Expect(Run("attention-gradient").values,
                 reference::AttentionGradient(blocks, reduction, call_.options,
                                              call_.position, seen()),
                 axis == GradientAxis::kSource ? "source" : "target");
        }
      }
    }
  }
}

TEST_P(MethodsTest, AttentionGradientAsPublished) {
  for (const MatrixForm& form : Forms()) {
    call_.form = form;
    const reference::Blocks blocks = Blocks();
    for (const int64_t start : StartLayers()) {
      call_.options.start_layer = start;
      call_.options.compat = Compatibility::kUpstream;
      Expect(
          Run("attention-gradient").values,
          reference::AttentionGradient(blocks, ChannelReduction::kMeanPos,
                                       call_.options, call_.position, seen()));
    }
  }
}

TEST_P(MethodsTest, ValueContribution) {
  for (const MatrixForm& form : Forms()) {
    call_.form = form;
    const reference::Blocks blocks = Blocks();
    for (const int64_t start : StartLayers()) {
      for (const int64_t norm : {1, 2}) {
        call_.options.start_layer = start;
        call_.options.norm = norm;
        Expect(Run("value-contribution").values,
               reference::ValueContribution(blocks, call_.options,
                                            call_.position));
      }
    }
  }
}

TEST_P(MethodsTest, Alti) {
  for (const MatrixForm& form : Forms()) {
    call_.form = form;
    const reference::Blocks blocks = Blocks();
    for (const int64_t start : StartLayers()) {
      call_.options.start_layer = start;
      Expect(Run("alti").values,
             reference::Alti(blocks, call_.options, call_.position));
    }
  }
}

TEST_P(MethodsTest, GradientNormAndInputXGradient) {
  const Matrix input = ToMatrix(e_[0]);
  const Matrix gradient = GradientAt(input);
  for (const int64_t norm : {1, 2}) {
    call_.options.norm = norm;
    const AttributionResult result = Run("gradient-norm");
    Expect(result.values, reference::GradientNorm(gradient, call_.options));
    Expect(result.gradient.flatten(), ToVector(ToTensor(gradient)));
  }
  call_.options = {};
  const Matrix expected = reference::InputXGradient(gradient, input);
  const AttributionResult result = Run("input-x-gradient");
  Expect(result.elementwise.flatten(), ToVector(ToTensor(expected)));
  Expect(result.values, reference::SumOverWidth(expected));
}

// SmoothGrad: the gradient averaged over noisy copies, times the input itself.
TEST_P(MethodsTest, SmoothedGradients) {
  call_.options.smoothing_samples = 3;
  call_.options.smoothing_noise = 0.05;
  call_.options.seed = 4;
  const at::Tensor copies = NoisyInputs({*network_,
                                         e_,
                                         input_.pixels,
                                         {call_.position},
                                         call_.form,
                                         ChannelReduction::kMeanAbs,
                                         call_.options},
                                        0, 3);
  EXPECT_FALSE(at::equal(copies[0], copies[1]));
  at::Tensor mean = at::zeros_like(e_[0]);
  for (int64_t i = 0; i < 3; ++i) {
    mean = mean + ToTensor(GradientAt(ToMatrix(copies[i]))) / 3;
  }
  Expect(Run("gradient-norm").values,
         reference::GradientNorm(ToMatrix(mean), {}));
  Expect(Run("input-x-gradient").values,
         reference::SumOverWidth(
             reference::InputXGradient(ToMatrix(mean), ToMatrix(e_[0]))));
}

TEST_P(MethodsTest, IntegratedGradients) {
  const Matrix input = ToMatrix(e_[0]);
  for (const Baseline& baseline : Baselines()) {
    for (const auto rule : {IntegrationRule::kCubic, IntegrationRule::kMidpoint,
                            IntegrationRule::kGaussLegendre}) {
      call_.options.baseline = baseline;
      call_.options.rule = rule;
      call_.options.steps = 9;
      const Matrix start = ToMatrix(Embedded(baseline));
      const Matrix expected = reference::IntegratedGradients(
          start, input, call_.options,
          [&](const Matrix& at_point) { return GradientAt(at_point); });
      const AttributionResult result = Run("integrated-gradients");
      Expect(result.elementwise.flatten(), ToVector(ToTensor(expected)));
      const Vector values = reference::SumOverWidth(expected);
      Expect(result.values, values);
      double gap = ScoreAt(start) - ScoreAt(input), scale = std::abs(gap);
      for (const double value : values) {
        gap += value;
        scale += std::abs(value);
      }
      EXPECT_NEAR(*result.completeness_error, gap, 1e-9 * scale);
    }
  }
}

// From another first token, or a blurred picture. Norms of heads may make a
// step of the score on such a line (integration_path_test.cc), which even steps
// hardly resolve; networks without them converge as the rule does.
TEST_P(MethodsTest, IntegratedGradientsBecomeCompleteWithSteps) {
  Baseline& baseline = call_.options.baseline.emplace();
  if (network_->info().modality == Modality::kImage) {
    baseline.kind = Baseline::Kind::kBlur;
  } else {
    baseline.kind = Baseline::Kind::kTokens;
    const Vector ids = ToVector(input_.token_ids);
    baseline.token_ids.assign(ids.begin(), ids.end());
    baseline.token_ids[0] = (baseline.token_ids[0] + 1) % 3;
  }
  std::vector<double> gaps;
  for (const int64_t steps : {16, 64, 256}) {
    call_.options.steps = steps;
    gaps.push_back(std::abs(*Run("integrated-gradients").completeness_error));
  }
  std::printf(
      "figure: %s: completeness error %.1e, %.1e, %.1e after 16, 64, "
      "256 steps\n",
      GetParam().name.c_str(), gaps[0], gaps[1], gaps[2]);
  const auto& forms = network_->info().forms;
  const bool head_norms =
      std::count(forms.begin(), forms.end(), AttentionForm::kNoNorm) > 0;
  EXPECT_LT(gaps[2], head_norms ? gaps[0] : gaps[0] / 20);
}

TEST_P(MethodsTest, FrozenLinear) {
  const Matrix input = ToMatrix(e_[0]);
  const auto frozen = [&](const Matrix& embeddings) {
    return Target(network_->ForwardFrozen(e_, ToTensor(embeddings).unsqueeze(0),
                                          {point().readout}, CancelToken()));
  };
  const AttributionResult result = Run("frozen-linear");
  const Vector expected = reference::FrozenLinear(input, frozen);
  Expect(result.values, expected);
  Expect(result.elementwise.sum(1), expected);
  double scale = std::abs(*result.constant);
  for (const double value : expected) scale += std::abs(value);
  EXPECT_NEAR(*result.constant, frozen(ToMatrix(at::zeros_like(e_[0]))),
              1e-9 * scale);
  EXPECT_NEAR(*result.completeness_error, 0, 1e-9 * scale);

  // In the precision that is served.
  const auto served = testing::MakeRandomNetwork(GetParam(), at::kFloat, 17);
  NetworkInput single = input_;
  if (single.pixels.defined()) single.pixels = single.pixels.to(at::kFloat);
  const AttributionResult in_single = RunMethod(*served, single, call_);
  EXPECT_LE(std::abs(*in_single.completeness_error), 1e-5 * scale);
}

TEST_P(MethodsTest, Occlusion) {
  const ModelInfo& info = network_->info();
  const Matrix input = ToMatrix(e_[0]);
  for (const Baseline& baseline : Baselines()) {
    for (const int64_t size : {1, 2, 3}) {
      std::vector<std::vector<int64_t>> windows;
      if (info.modality == Modality::kImage) {
        const int64_t height = std::min(size, info.grid_rows);
        const int64_t width = std::min(size, info.grid_columns);
        for (int64_t row = 0; row + height <= info.grid_rows; ++row) {
          for (int64_t column = 0; column + width <= info.grid_columns;
               ++column) {
            auto& window = windows.emplace_back();
            for (int64_t y = row; y < row + height; ++y) {
              for (int64_t x = column; x < column + width; ++x) {
                const int64_t patch = y * info.grid_columns + x;
                window.push_back(patch + (patch >= info.class_token));
              }
            }
          }
        }
      } else {
        for (int64_t i = 0; i + size <= seen(); ++i) {
          auto& window = windows.emplace_back();
          for (int64_t t = i; t < i + size; ++t) window.push_back(t);
        }
      }
      call_.options.baseline = baseline;
      call_.options.occlusion_window = size;
      Expect(Run("occlusion").values,
             reference::Occlusion(
                 input, ToMatrix(Embedded(baseline)), windows,
                 [&](const Matrix& variant) { return ScoreAt(variant); }));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, MethodsTest,
                         ::testing::ValuesIn(testing::TinyCases()),
                         [](const ::testing::TestParamInfo<TinyCase>& info) {
                           return info.param.name;
                         });

// A method that is added needs a test above.
TEST(MethodsListTest, EveryMethodHasItsReference) {
  std::vector<std::string> names;
  for (const MethodSpec& method : ListedMethods()) names.push_back(method.name);
  EXPECT_EQ(names, (std::vector<std::string>{
                       "raw-attention", "attention-rollout",
                       "attention-gradient", "value-contribution", "alti",
                       "gradient-norm", "input-x-gradient",
                       "integrated-gradients", "frozen-linear", "occlusion"}));
}

}  // namespace
}  // namespace limpid
