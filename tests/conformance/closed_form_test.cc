// SPDX-License-Identifier: Apache-2.0
//
// Every method where the answer is known without a computer: two tokens by
// hand, and networks that are linear.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "server/attribution/baseline.h"
#include "tests/support/fixed_network.h"
#include "tests/support/run_method.h"

namespace limpid {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using testing::MethodCall;

at::Tensor Numbers(const std::vector<double>& values,
                   const std::vector<int64_t>& shape) {
  return at::tensor(values, at::kDouble).view(shape);
}

std::vector<double> Listed(const at::Tensor& tensor) {
  const at::Tensor packed = tensor.to(at::kDouble).contiguous();
  const double* const data = packed.const_data_ptr<double>();
  return {data, data + packed.numel()};
}

// Two tokens e = (1, 2) of width 1, and two layers that add A_0 s and A_1 s,
//   A_0 = (0.5 0; 1 2),  A_1 = (1 0; 3 1),
// to the stream s: it is (1, 2), then (1.5, 7), then (3, 18.5). Scores are 2 s
// and 1 - s; explained is their difference 3 s - 1 at the second token, 54.5.
class TwoTokensTest : public ::testing::Test {
 protected:
  TwoTokensTest() {
    testing::FixedParts parts;
    parts.table = Numbers({1, 2, 0.5}, {3, 1});
    const at::Tensor one = at::ones({1, 1}, at::kDouble);
    parts.blocks = {{Numbers({0.5, 0, 1, 2}, {1, 2, 2}), one, one},
                    {Numbers({1, 0, 3, 1}, {1, 2, 2}), one, one}};
    parts.head = Numbers({2, -1}, {2, 1});
    parts.bias = Numbers({0, 1}, {2});
    network_ = testing::MakeFixedNetwork(std::move(parts));
    input_.token_ids = at::tensor({0, 1}, at::kLong).view({1, 2});
    call_.position = 1;
    call_.target = {0, 1};
  }
  AttributionResult Run(const std::string& method) {
    call_.method = method;
    return RunMethod(*network_, input_, call_);
  }
  // The two values must be `first` and `second`.
  void Expect(const AttributionResult& result, double first, double second) {
    EXPECT_THAT(Listed(result.values), ElementsAre(DoubleNear(first, 1e-12),
                                                   DoubleNear(second, 1e-12)))
        << call_.method;
  }

  std::unique_ptr<const Network> network_;
  NetworkInput input_;
  MethodCall call_;
};

TEST_F(TwoTokensTest, RawAttention) {
  Expect(Run("raw-attention"), 2, 1.5);  // of (1, 2) and (3, 1)
  call_.options.start_layer = 1;
  Expect(Run("raw-attention"), 3, 1);
}

// Rows of A_0 + I by their sums: (1, 0), (1, 3) / 4. Of A_1: (3, 2) / 5.
TEST_F(TwoTokensTest, AttentionRollout) {
  for (const ChannelReduction reduction :
       {ChannelReduction::kMean, ChannelReduction::kMeanAbs}) {
    call_.reduction = reduction;
    call_.options = {};
    Expect(Run("attention-rollout"), 0.6 + 0.4 / 4, 0.4 * 3 / 4);
    call_.options.start_layer = 1;
    Expect(Run("attention-rollout"), 0.6, 0.4);
    // (1, 2 + 3) / 6 after (3, 1 + 3) / 7.
    call_.options = {};
    call_.options.residual_weight = 3;
    Expect(Run("attention-rollout"), 3. / 7 + 4. / 7 / 6, 4. / 7 * 5 / 6);
  }
}

// Gradients by what is added: (9, 6) of layer 0, (0, 3) of layer 1.
TEST_F(TwoTokensTest, AttentionGradientByTheSource) {
  // Layer 0: (9, 12 + 1) / 22; layer 1: (0, 3 + 1) / 4.
  Expect(Run("attention-gradient"), 9. / 22, 13. / 22);
}

TEST_F(TwoTokensTest, AttentionGradientByTheTarget) {
  call_.options.axis = GradientAxis::kTarget;
  // Layer 0: (1, 0) and (6, 12 + 1) / 19; layer 1: (9, 3 + 1) / 13.
  Expect(Run("attention-gradient"), 9. / 13 + 4. / 13 * 6 / 19,
         4. / 13 * 13 / 19);
}

// The published procedure: rows (1, 2) * (1, 0) and (3, 1) * (0, 1), scaled to
// (1, 0) and (0, 1), each standing for all rows of its layer. Without the
// position's own column their sum, layer l divided by the product of 1 + sum
// up to it: 1/2 (1, .) + 1/4 (0, .).
TEST_F(TwoTokensTest, AttentionGradientAsPublished) {
  call_.options.compat = Compatibility::kUpstream;
  Expect(Run("attention-gradient"), 0.5, 0.5);
}

TEST_F(TwoTokensTest, ValueContribution) {
  // (1 * 1, 2 * 2) and (3 * 1.5, 1 * 7).
  Expect(Run("value-contribution"), 2.75, 5.5);
}

// Of 7 after layer 0 the share 1 is the first token's, of 18.5 after layer 1
// the share 4.5.
TEST_F(TwoTokensTest, Alti) { Expect(Run("alti"), 6.5 / 18.5, 12 / 18.5); }

TEST_F(TwoTokensTest, GradientMethods) {
  Expect(Run("gradient-norm"), 19.5, 18);
  Expect(Run("input-x-gradient"), 19.5, 36);
  const AttributionResult frozen = Run("frozen-linear");
  Expect(frozen, 19.5, 36);
  EXPECT_NEAR(*frozen.constant, -1, 1e-12);
  EXPECT_NEAR(*frozen.completeness_error, 0, 1e-12);
}

TEST_F(TwoTokensTest, IntegratedGradientsFromATokenAlone) {
  call_.options.baseline.emplace().kind = Baseline::Kind::kToken;
  call_.options.baseline->token_id = 2;  // e = 0.5
  const AttributionResult result = Run("integrated-gradients");
  Expect(result, 19.5 * 0.5, 18 * 1.5);
  EXPECT_NEAR(*result.completeness_error, 0, 1e-12);
}

TEST_F(TwoTokensTest, Occlusion) {
  Expect(Run("occlusion"), 19.5, 36);
  call_.options.occlusion_window = 2;
  Expect(Run("occlusion"), 55.5, 55.5);
}

// With several channels, layers and positions: what every method that explains
// a number says of a linear network is its one gradient.
TEST(LinearNetworkTest, EveryMethodAgrees) {
  const int64_t length = 5, width = 3, channels = 4, vocabulary = 6;
  const auto wave = [](const std::vector<int64_t>& shape, double phase) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    return at::sin(at::arange(count, at::kDouble) * 1.7 + phase).view(shape);
  };
  testing::FixedParts parts;
  parts.table = wave({vocabulary, width}, 0.1);
  for (const double phase : {0.2, 0.3, 0.4}) {
    parts.blocks.push_back(
        {wave({channels, length, length}, phase).tril() * 0.5,
         wave({channels, width}, phase + 1),
         wave({width, channels}, phase + 2)});
  }
  parts.head = wave({vocabulary, width}, 0.5);
  parts.bias = wave({vocabulary}, 0.6);
  const testing::FixedBlock* const blocks = parts.blocks.data();
  // By hand, one layer after the other: the explained number as a row of the
  // stream's coordinates, from the head down.
  at::Tensor row = at::zeros({length, width}, at::kDouble);
  row[length - 1] = parts.head[2];
  for (int l = 2; l >= 0; --l) {
    const at::Tensor back = at::zeros_like(row);
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t j = 0; j < length; ++j) {
        for (int64_t c = 0; c < channels; ++c) {
          const at::Tensor weight =
              at::dot(row[i], blocks[l].out.select(1, c)) *
              blocks[l].alpha[c][i][j];
          back[j] += weight * blocks[l].in[c];
        }
      }
    }
    row = row + back;
  }
  const double bias = parts.bias[2].item().toDouble();
  const auto network = testing::MakeFixedNetwork(parts);
  NetworkInput input;
  input.token_ids = at::tensor({3, 0, 5, 1, 4}, at::kLong).view({1, length});
  const at::Tensor e = network->Embed(input)[0];
  const at::Tensor share = (row * e).sum(1);

  MethodCall call;
  call.position = length - 1;
  call.target.id = 2;
  const auto run = [&](const std::string& method) {
    call.method = method;
    return RunMethod(*network, input, call);
  };
  const auto close = [](const at::Tensor& a, const at::Tensor& b) {
    return at::allclose(a, b, 1e-11, 1e-12);
  };
  EXPECT_TRUE(close(run("gradient-norm").values, row.norm(2, {1})));
  EXPECT_TRUE(close(run("input-x-gradient").elementwise, row * e));
  EXPECT_TRUE(close(run("frozen-linear").values, share));
  EXPECT_NEAR(*run("frozen-linear").constant, bias, 1e-12);
  EXPECT_TRUE(close(run("occlusion").values, share));
  call.options.baseline.emplace().kind = Baseline::Kind::kMean;
  EXPECT_TRUE(
      close(run("occlusion").values, (row * (e - parts.table.mean(0))).sum(1)));
  for (const IntegrationRule rule :
       {IntegrationRule::kMidpoint, IntegrationRule::kGaussLegendre}) {
    call.options.rule = rule;
    const AttributionResult result = run("integrated-gradients");
    EXPECT_TRUE(close(result.elementwise, row * (e - parts.table.mean(0))));
    EXPECT_NEAR(*result.completeness_error, 0, 1e-12);
  }
  // Cubic weights add up to 1 - 1 / (4 steps^2).
  call.options.rule = IntegrationRule::kCubic;
  call.options.baseline.reset();
  call.options.steps = 8;
  EXPECT_TRUE(
      close(run("integrated-gradients").values, share * (1 - 1 / 256.)));
}

TEST(BlurredTest, IsTheGaussianMeanWithTheEdgeGoingOn) {
  const int64_t height = 20, width = 32;
  const at::Tensor pixels = at::arange(2 * 3 * height * width, at::kDouble)
                                .mul(0.37)
                                .sin()
                                .view({2, 3, height, width});
  const double deviation = 20 / 16.0;
  const auto inside = [](int64_t place, int64_t size) {
    return std::min(std::max<int64_t>(place, 0), size - 1);
  };
  const at::Tensor blurred = Blurred(pixels);
  for (const auto& [y, x] :
       {std::pair<int64_t, int64_t>{0, 0}, {19, 31}, {10, 1}, {3, 17}}) {
    double sum = 0, weights = 0;
    for (int64_t dy = -4; dy <= 4; ++dy) {
      for (int64_t dx = -4; dx <= 4; ++dx) {
        const double weight =
            std::exp((dy * dy + dx * dx) / (-2 * deviation * deviation));
        weights += weight;
        sum +=
            weight * pixels[1][2][inside(y + dy, height)][inside(x + dx, width)]
                         .item()
                         .toDouble();
      }
    }
    EXPECT_NEAR(blurred[1][2][y][x].item().toDouble(), sum / weights, 1e-12);
  }
}

}  // namespace
}  // namespace limpid
