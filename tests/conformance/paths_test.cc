// SPDX-License-Identifier: Apache-2.0
//
// For every listed architecture: the fast and the differentiable path are one
// function, sequences of a batch do not mix, packed ones neither, what comes
// later changes nothing, and gradients are right.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "server/attribution/gradient.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

using testing::TinyCase;

class PathsTest : public ::testing::TestWithParam<TinyCase> {
 protected:
  std::unique_ptr<const Network> Make(at::ScalarType dtype) {
    return testing::MakeRandomNetwork(GetParam(), dtype, 11);
  }
  // e of seeded random input, [batch, length, E].
  static at::Tensor Embedded(const Network& network, int64_t batch,
                             int64_t length, uint64_t seed) {
    return network.Embed(testing::RandomInput(network, batch, length, seed));
  }
  static at::Tensor Fast(const Network& network, const at::Tensor& embeddings,
                         const std::vector<int64_t>& positions) {
    const c10::NoGradGuard no_gradients;
    auto scores =
        network.Forward(embeddings, positions, nullptr, CancelToken());
    EXPECT_TRUE(scores.ok()) << scores.status();
    return scores->clone();
  }
};

TEST_P(PathsTest, FastAndDifferentiablePathsAgree) {
  const auto network = Make(at::kDouble);
  for (const int64_t length : testing::LengthsOf(*network, {1, 2, 65})) {
    const at::Tensor e = Embedded(*network, 2, length, 3);
    for (const Differentiation differentiation :
         {Differentiation::kFull, Differentiation::kFrozen}) {
      const auto slow = network->ForwardDifferentiable(e, {}, differentiation,
                                                       nullptr, CancelToken());
      ASSERT_TRUE(slow.ok()) << slow.status();
      EXPECT_TRUE(
          at::allclose(Fast(*network, e, {}), slow->detach(), 1e-10, 1e-12));
    }
  }
}

TEST_P(PathsTest, FloatAgreesWithDouble) {
  const auto exact = Make(at::kDouble);
  const auto single = Make(at::kFloat);
  const at::Tensor e = Embedded(*exact, 1, 257, 4);
  const at::Tensor a = Fast(*exact, e, {});
  const at::Tensor b = Fast(*single, e.to(at::kFloat), {}).to(at::kDouble);
  EXPECT_LE(((a - b).abs().max() / a.abs().max()).item().toDouble(), 2e-5);
}

TEST_P(PathsTest, SequencesOfABatchDoNotMix) {
  const auto network = Make(at::kDouble);
  const at::Tensor e = Embedded(*network, 3, 19, 5);
  const at::Tensor together = Fast(*network, e, {});
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::allclose(together.narrow(0, i, 1),
                             Fast(*network, e.narrow(0, i, 1), {}), 1e-10,
                             1e-12));
  }
}

TEST_P(PathsTest, PackedSequencesDoNotMix) {
  const auto network = Make(at::kDouble);
  if (!network->info().causal) GTEST_SKIP() << "not causal: never packed";
  const std::vector<int64_t> lengths = {2, 1, 257, 1, 64, 63, 65};
  Sequences sequences;
  sequences.packing = Packing(lengths);
  std::vector<at::Tensor> alone;
  for (const int64_t length : lengths) {
    sequences.positions.push_back({length - 1, 0});
    alone.push_back(Embedded(*network, 1, length, 100 + alone.size()));
  }
  // Each layer's outputs of each sequence.
  const auto collect = [](std::vector<at::Tensor>& outputs) {
    return [&](int64_t, int64_t, const BlockAttention& attention) {
      outputs.push_back(attention.Map({}).output.clone());
      return absl::OkStatus();
    };
  };
  std::vector<at::Tensor> together;
  const auto scores = network->ForwardSequences(
      at::cat(alone, 1), sequences, collect(together), CancelToken());
  ASSERT_TRUE(scores.ok()) << scores.status();
  const size_t count = lengths.size();
  ASSERT_EQ(together.size(), count * network->info().num_layers);
  for (size_t i = 0; i < count; ++i) {
    SCOPED_TRACE(lengths[i]);
    std::vector<at::Tensor> outputs;
    const auto expected = network->Forward(alone[i], sequences.positions[i],
                                           collect(outputs), CancelToken());
    ASSERT_TRUE(expected.ok()) << expected.status();
    EXPECT_TRUE(at::allclose((*scores)[i], expected->squeeze(0), 1e-10, 1e-12));
    for (size_t layer = 0; layer < outputs.size(); ++layer) {
      EXPECT_TRUE(at::allclose(together[layer * count + i], outputs[layer],
                               1e-10, 1e-12));
    }
  }
}

TEST_P(PathsTest, WhatComesLaterChangesNothing) {
  const auto network = Make(at::kDouble);
  if (!network->info().causal) GTEST_SKIP() << "not causal";
  const at::Tensor e = Embedded(*network, 1, 30, 6);
  EXPECT_TRUE(at::allclose(Fast(*network, e, {16}),
                           Fast(*network, e.narrow(1, 0, 17), {16}), 1e-10,
                           1e-12));
}

TEST_P(PathsTest, GradientsAgreeWithFiniteDifferences) {
  const auto network = Make(at::kDouble);
  const at::Tensor e = Embedded(*network, 1, 7, 8);
  ResolvedTarget target;
  target.id = 1;
  target.baseline_id = 2;
  const int64_t position = e.size(1) - 2;
  const auto gradients = GradientsOfTargets(
      *network, e, {{position, position, target}}, Differentiation::kFull,
      /*by_block_outputs=*/false, CancelToken());
  ASSERT_TRUE(gradients.ok()) << gradients.status();
  const at::Tensor gradient = gradients->front().gradient;
  const auto score = [&](const at::Tensor& point) {
    return TargetScore(Fast(*network, point, {position})[0][0], target)
        .item()
        .toDouble();
  };
  // Five points: norms of small heads bend within the step of a simpler rule.
  const double step = 1e-5;
  double largest = 0;
  for (int64_t t = 0; t < e.size(1); ++t) {
    for (int64_t i = 0; i < e.size(2); ++i) {
      const auto at_distance = [&](double distance) {
        at::Tensor point = e.clone();
        point[0][t][i] += distance;
        return score(point);
      };
      const double expected =
          (8 * (at_distance(step) - at_distance(-step)) -
           (at_distance(2 * step) - at_distance(-2 * step))) /
          (12 * step);
      largest = std::max(
          largest, std::abs(expected - gradient[0][t][i].item().toDouble()));
    }
  }
  EXPECT_LE(largest / gradient.abs().max().item().toDouble(), 1e-6);
  // Positions behind the explained one have no influence.
  if (network->info().causal) {
    EXPECT_EQ(gradient[0][position + 1].abs().max().item().toDouble(), 0);
  }
}

// With all factors frozen the scores are affine in e, so its gradient and the
// scores at zero say all: the second master test of the implicit attention.
TEST_P(PathsTest, TheFrozenNetworkIsCompletelyLinear) {
  const auto network = Make(at::kDouble);
  for (const int64_t length : testing::LengthsOf(*network, {1, 17})) {
    const at::Tensor e = Embedded(*network, 1, length, 9);
    const at::Tensor other = at::flip(e, {2}) * 3 + 0.25;
    ResolvedTarget target;
    target.id = 2;
    const int64_t position = length - 1;
    const auto gradients = GradientsOfTargets(
        *network, e, {{position, position, target}}, Differentiation::kFrozen,
        /*by_block_outputs=*/false, CancelToken());
    ASSERT_TRUE(gradients.ok()) << gradients.status();
    const TargetGradient& at_input = gradients->front();
    const auto frozen = [&](const at::Tensor& point) {
      const auto scores =
          network->ForwardFrozen(e, point, {position}, CancelToken());
      EXPECT_TRUE(scores.ok()) << scores.status();
      return TargetScore((*scores)[0][0], target).item().toDouble();
    };
    const double at_zero = frozen(at::zeros_like(e));
    const auto linear = [&](const at::Tensor& point) {
      return at_zero + (at_input.gradient * point).sum().item().toDouble();
    };
    const double score = at_input.score.item().toDouble();
    const double scale = (at_input.gradient * e).abs().sum().item().toDouble() +
                         std::abs(at_zero);
    EXPECT_NEAR(linear(e), score, 1e-10 * scale);
    EXPECT_NEAR(frozen(e), score, 1e-10 * scale);
    EXPECT_NEAR(linear(other), frozen(other), 1e-9 * scale);
  }
}

// Gradients by what blocks add to the stream, which attention-gradient weights
// with: moving that by a little must move the score accordingly. The last
// block's is checked through the head, whose only input it is.
TEST_P(PathsTest, EveryBlockOutputHasAGradient) {
  const auto network = Make(at::kDouble);
  const at::Tensor e = Embedded(*network, 2, 9, 12);
  const int64_t position = e.size(1) - 1;
  ResolvedTarget target;
  target.id = 1;
  const auto gradients = GradientsOfTargets(
      *network, e, {{position, position, target}, {0, 0, target}},
      Differentiation::kFull, /*by_block_outputs=*/true, CancelToken());
  ASSERT_TRUE(gradients.ok()) << gradients.status();
  ASSERT_EQ(gradients->size(), 2u);
  for (const TargetGradient& one : *gradients) {
    ASSERT_EQ(static_cast<int64_t>(one.block_outputs.size()),
              network->info().num_layers);
    for (const at::Tensor& by_output : one.block_outputs) {
      EXPECT_EQ(by_output.sizes(), e.sizes());
      EXPECT_GT(by_output.abs().max().item().toDouble(), 0);
    }
  }
  // The second point gets what it gets alone.
  const auto alone =
      GradientsOfTargets(*network, e, {{0, 0, target}}, Differentiation::kFull,
                         /*by_block_outputs=*/false, CancelToken());
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_TRUE(at::allclose((*gradients)[1].gradient, alone->front().gradient,
                           1e-10, 1e-14));
}

// The attention as an operator: the same as its entries, and its transpose is
// one.
TEST_P(PathsTest, AttentionIsAppliedWithoutItsMatrix) {
  const auto network = Make(at::kDouble);
  for (const int64_t length : testing::LengthsOf(*network, {1, 17})) {
    const at::Tensor e = Embedded(*network, 1, length, 13);
    std::vector<at::Tensor> outputs;
    ASSERT_TRUE(network
                    ->Forward(
                        e, {0},
                        [&](int64_t, int64_t, const BlockAttention& attention) {
                          outputs.push_back(attention.Map({}).output.clone());
                          return absl::OkStatus();
                        },
                        CancelToken())
                    .ok());
    auto expected_layer = static_cast<int64_t>(outputs.size());
    const auto visit = [&](int64_t layer, int64_t,
                           const BlockAttention& attention) {
      EXPECT_EQ(layer, --expected_layer);
      for (const AttentionForm name : network->info().forms) {
        const MatrixForm form{name, DefaultIncludeSkip(name)};
        const BlockMap map = attention.Map(form);
        const double scale = map.output.abs().max().item().toDouble();
        if (name == AttentionForm::kFull) {
          EXPECT_TRUE(at::allclose(map.output, outputs[layer], 1e-10, 1e-12));
        }
        EXPECT_TRUE(at::allclose(attention.Apply(form, map.value) + map.bias,
                                 map.output, 1e-10, 1e-10 * scale))
            << FormName(name);
        const at::Tensor u =
            at::sin(at::arange(map.value.numel(), map.value.options()))
                .view(map.value.sizes());
        const at::Tensor w = at::flip(u, {0, 1}) + 0.5;
        const double forwards =
            (attention.Apply(form, u) * w).sum().item().toDouble();
        const double backwards =
            (attention.ApplyTransposed(form, w) * u).sum().item().toDouble();
        EXPECT_NEAR(forwards, backwards, 1e-10 * (std::abs(forwards) + 1))
            << FormName(name);
      }
      return absl::OkStatus();
    };
    ASSERT_TRUE(network->VisitBackwards(e, visit, CancelToken()).ok());
    EXPECT_EQ(expected_layer, 0);
  }
}

TEST_P(PathsTest, ForwardStopsWhenCancelled) {
  const auto network = Make(at::kFloat);
  CancelToken cancel;
  cancel.Cancel();
  EXPECT_EQ(network->Forward(Embedded(*network, 1, 4, 9), {3}, nullptr, cancel)
                .status()
                .code(),
            absl::StatusCode::kCancelled);
}

INSTANTIATE_TEST_SUITE_P(Architectures, PathsTest,
                         ::testing::ValuesIn(testing::TinyCases()),
                         [](const ::testing::TestParamInfo<TinyCase>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace limpid
