// SPDX-License-Identifier: Apache-2.0
//
// The master test, for every listed architecture: each form's matrix applied to
// its value, plus its bias, gives its output. A wrong sign, an off-by-one decay
// or a reversed convolution breaks it.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>

#include "server/reduce/sinks.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

struct Case {
  std::string architecture;
  int config;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const ArchitectureSpec& spec : ListedArchitectures()) {
    for (size_t i = 0; i < spec.tiny_configs.size(); ++i) {
      cases.push_back({spec.id, static_cast<int>(i)});
    }
  }
  return cases;
}

const ArchitectureSpec& SpecOf(const std::string& id) {
  for (const ArchitectureSpec& spec : ListedArchitectures()) {
    if (spec.id == id) return spec;
  }
  ADD_FAILURE() << id;
  return ListedArchitectures().front();
}

class IdentityTest : public ::testing::TestWithParam<Case> {
 protected:
  // Calls `check` with every layer's attention of one random sequence.
  void VisitLayers(
      at::ScalarType dtype, int64_t length,
      const std::function<void(const Network&, const BlockAttention&)>& check) {
    const ArchitectureSpec& spec = SpecOf(GetParam().architecture);
    const auto network = testing::MakeRandomNetwork(
        spec, spec.tiny_configs[GetParam().config], dtype, 7);
    ASSERT_NE(network, nullptr);
    const c10::NoGradGuard no_gradients;
    NetworkInput input;
    input.token_ids = testing::RandomTokens(*network, 1, length, length);
    int64_t visited = 0;
    const auto logits = network->Forward(
        network->Embed(input), {length - 1},
        [&](int64_t, int64_t, const BlockAttention& attention) {
          check(*network, attention);
          ++visited;
          return absl::OkStatus();
        },
        CancelToken());
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_EQ(visited, network->info().num_layers);
  }

  static at::Tensor Entries(const BlockAttention& attention,
                            const MatrixForm& form, RowRange rows) {
    ChannelCollector collector({}, attention, rows);
    EXPECT_TRUE(
        attention.Visit(form, rows, collector, CancelToken()).ok());
    return collector.Finish();
  }
};

constexpr int64_t kLengths[] = {1, 2, 3, 4, 17, 64, 65, 257};

std::vector<MatrixForm> FormsOf(const Network& network) {
  std::vector<MatrixForm> forms;
  for (const AttentionForm form : network.info().forms) {
    forms.push_back({form, DefaultIncludeSkip(form)});
    if (form != AttentionForm::kUpstream) {
      forms.push_back({form, !DefaultIncludeSkip(form)});
    }
  }
  return forms;
}

TEST_P(IdentityTest, EveryFormReproducesWhatItMaps) {
  for (const auto& [dtype, tolerance] :
       std::map<at::ScalarType, double>{{at::kDouble, 1e-12},
                                        {at::kFloat, 1e-5}}) {
    double largest = 0;
    for (const int64_t length : kLengths) {
      VisitLayers(dtype, length, [&](const Network& network,
                                     const BlockAttention& attention) {
        for (const MatrixForm& form : FormsOf(network)) {
          const at::Tensor alpha = Entries(attention, form, {0, length});
          const BlockMap map = attention.Map(form);
          const at::Tensor mapped =
              at::bmm(alpha, map.value.t().unsqueeze(2)).squeeze(2).t() +
              map.bias;
          // Relative to the largest sum of absolute terms: with random weights
          // the few terms of an early row can cancel in every channel at once.
          const at::Tensor terms =
              at::bmm(alpha.abs(), map.value.abs().t().unsqueeze(2)).max() +
              map.bias.abs().max();
          const double error =
              ((mapped - map.output).abs().max() / terms).item().toDouble();
          largest = std::max(largest, error);
          EXPECT_LE(error, tolerance)
              << FormName(form.form) << " L=" << length << " " << dtype;
        }
      });
    }
    std::printf("figure: %s, configuration %d, %s: largest identity error %.1e\n",
                GetParam().architecture.c_str(), GetParam().config,
                dtype == at::kDouble ? "float64" : "float32", largest);
  }
}

TEST_P(IdentityTest, CausalMatricesAreZeroAboveTheDiagonal) {
  VisitLayers(at::kFloat, 65, [&](const Network& network,
                                  const BlockAttention& attention) {
    if (!network.info().causal) return;
    for (const MatrixForm& form : FormsOf(network)) {
      const at::Tensor alpha = Entries(attention, form, {0, 65});
      EXPECT_EQ(alpha.triu(1).abs().max().item().toDouble(), 0);
      EXPECT_GT(alpha.tril(-1).abs().max().item().toDouble(), 0);
    }
  });
}

TEST_P(IdentityTest, ARowIsTheMatrixRow) {
  for (const int64_t length : {3, 65, 257}) {
    VisitLayers(at::kDouble, length, [&](const Network& network,
                                         const BlockAttention& attention) {
      for (const MatrixForm& form : FormsOf(network)) {
        const at::Tensor all = Entries(attention, form, {0, length});
        for (const int64_t row : {int64_t{0}, length / 2, length - 1}) {
          const at::Tensor one = Entries(attention, form, {row, row + 1});
          EXPECT_TRUE(at::allclose(one.select(1, 0), all.select(1, row), 1e-10,
                                   1e-14))
              << FormName(form.form) << " row " << row << " of " << length;
        }
      }
    });
  }
}

TEST_P(IdentityTest, ReductionsFollowTheirFormulas) {
  VisitLayers(at::kDouble, 65, [&](const Network&,
                                   const BlockAttention& attention) {
    const MatrixForm form;
    const at::Tensor alpha = Entries(attention, form, {5, 65});
    const at::Tensor norms = attention.OutputNorms();
    const std::map<ChannelReduction, at::Tensor> expected = {
        {ChannelReduction::kMeanAbs, alpha.abs().mean(0)},
        {ChannelReduction::kMean, alpha.mean(0)},
        {ChannelReduction::kMeanPos, alpha.clamp_min(0).mean(0)},
        {ChannelReduction::kPosMean, alpha.mean(0).clamp_min(0)},
        {ChannelReduction::kMax, alpha.amax(0)},
        {ChannelReduction::kMin, alpha.amin(0)},
        {ChannelReduction::kL2, alpha.square().mean(0).sqrt()},
        {ChannelReduction::kWnorm,
         (alpha.abs() * norms.view({-1, 1, 1})).sum(0) / norms.sum()}};
    for (const auto& [reduction, matrix] : expected) {
      ChannelReducer reducer(reduction, attention, {5, 65});
      ASSERT_TRUE(
          attention.Visit(form, {5, 65}, reducer, CancelToken()).ok());
      EXPECT_TRUE(at::allclose(reducer.Finish(), matrix, 1e-10, 1e-14))
          << ReductionName(reduction);
    }
  });
}

TEST_P(IdentityTest, VisitStopsWhenCancelled) {
  VisitLayers(at::kFloat, 65, [&](const Network&,
                                  const BlockAttention& attention) {
    CancelToken cancel;
    cancel.Cancel();
    ChannelReducer reducer(ChannelReduction::kMean, attention, {0, 65});
    EXPECT_EQ(attention.Visit({}, {0, 65}, reducer, cancel).code(),
              absl::StatusCode::kCancelled);
  });
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, IdentityTest, ::testing::ValuesIn(Cases()),
    [](const ::testing::TestParamInfo<Case>& info) {
      return info.param.architecture + std::to_string(info.param.config);
    });

}  // namespace
}  // namespace limpid
