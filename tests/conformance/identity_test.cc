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
#include "tests/support/identity.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

using testing::Entries;
using testing::IdentityError;
using testing::TinyCase;

class IdentityTest : public ::testing::TestWithParam<TinyCase> {
 protected:
  // Prints a row per architecture.
  static void TearDownTestSuite() {
    for (const auto& [architecture, errors] : Largest()) {
      std::printf(
          "figure: largest identity error of %-16s float64 %.1e  float32 "
          "%.1e\n",
          architecture.c_str(), errors.at(at::kDouble), errors.at(at::kFloat));
    }
  }
  // Largest error that was seen of an architecture in a precision.
  using Errors = std::map<at::ScalarType, double>;
  static std::map<std::string, Errors>& Largest() {
    static auto* const largest = new std::map<std::string, Errors>;
    return *largest;
  }
  static void Note(at::ScalarType dtype, double error) {
    Errors& errors = Largest()[GetParam().spec->id];
    for (const at::ScalarType both : {at::kDouble, at::kFloat}) errors[both];
    errors[dtype] = std::max(errors[dtype], error);
  }

  // Those of `lengths` that the network can have.
  static std::vector<int64_t> Lengths(const std::vector<int64_t>& lengths) {
    const auto network = testing::MakeRandomNetwork(GetParam(), at::kFloat, 7);
    return testing::LengthsOf(*network, lengths);
  }

  // Calls `check` with every layer's attention of one random sequence.
  void VisitLayers(
      at::ScalarType dtype, int64_t length,
      const std::function<void(const Network&, const BlockAttention&)>& check) {
    const auto network = testing::MakeRandomNetwork(GetParam(), dtype, 7);
    ASSERT_NE(network, nullptr);
    const c10::NoGradGuard no_gradients;
    const NetworkInput input =
        testing::RandomInput(*network, 1, length, length);
    int64_t visited = 0;
    const auto logits = network->Forward(
        network->Embed(input), {0},
        [&](int64_t, int64_t, const BlockAttention& attention) {
          check(*network, attention);
          ++visited;
          return absl::OkStatus();
        },
        CancelToken());
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_EQ(visited, network->info().num_layers);
  }
};

const std::vector<int64_t> kLengths = {1, 2, 3, 4, 17, 64, 65, 257};

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
  for (const auto& [dtype, tolerance] : std::map<at::ScalarType, double>{
           {at::kDouble, 1e-12}, {at::kFloat, 1e-5}}) {
    double largest = 0;
    for (const int64_t length : Lengths(kLengths)) {
      VisitLayers(
          dtype, length,
          [&](const Network& network, const BlockAttention& attention) {
            for (const MatrixForm& form : FormsOf(network)) {
              const double error = IdentityError(
                  Entries(attention, form, {0, length}), attention.Map(form));
              largest = std::max(largest, error);
              EXPECT_LE(error, tolerance)
                  << FormName(form.form) << " L=" << length << " " << dtype;
            }
          });
    }
    Note(dtype, largest);
  }
}

TEST_P(IdentityTest, LongSequences) {
  for (const auto& [dtype, tolerance] : std::map<at::ScalarType, double>{
           {at::kDouble, 1e-12}, {at::kFloat, 1e-5}}) {
    double largest = 0;
    for (const int64_t length : Lengths({1024})) {
      VisitLayers(dtype, length,
                  [&](const Network&, const BlockAttention& attention) {
                    const double error = IdentityError(
                        Entries(attention, {}, {0, length}), attention.Map({}));
                    EXPECT_LE(error, tolerance) << dtype;
                    largest = std::max(largest, error);
                  });
    }
    Note(dtype, largest);
  }
}

// The head form: of a head's first channel the form state, on raw values.
TEST_P(IdentityTest, AHeadsMatrixMapsAllItsChannels) {
  const MatrixForm state{AttentionForm::kState, false};
  double largest = 0;
  bool heads_seen = false;
  for (const int64_t length : Lengths({1, 17, 65})) {
    int64_t layer = 0;
    VisitLayers(
        at::kDouble, length,
        [&](const Network& network, const BlockAttention& attention) {
          const int64_t heads = network.info().layer_heads[layer++];
          if (heads == 0) return;
          heads_seen = true;
          const int64_t size = attention.num_channels() / heads;
          std::vector<int64_t> first;
          for (int64_t h = 0; h < heads; ++h) first.push_back(h * size);
          ChannelCollector collector(first, attention, {0, length});
          ASSERT_TRUE(
              attention.Visit(state, {0, length}, collector, CancelToken())
                  .ok());
          const BlockMap map = attention.Map(state);
          const at::Tensor of_channels =
              collector.Finish().repeat_interleave(size, 0);
          const double error = IdentityError(of_channels, map);
          EXPECT_LE(error, 1e-12);
          largest = std::max(largest, error);
        });
  }
  if (!heads_seen) GTEST_SKIP() << "has no heads";
  std::printf("figure: %s, float64: largest identity error by heads %.1e\n",
              GetParam().name.c_str(), largest);
}

TEST_P(IdentityTest, CausalMatricesAreZeroAboveTheDiagonal) {
  for (const int64_t length : Lengths({65})) {
    VisitLayers(
        at::kFloat, length,
        [&](const Network& network, const BlockAttention& attention) {
          for (const MatrixForm& form : FormsOf(network)) {
            const at::Tensor alpha = Entries(attention, form, {0, length});
            const double above = alpha.triu(1).abs().max().item().toDouble();
            if (network.info().causal) {
              EXPECT_EQ(above, 0) << FormName(form.form);
            } else {
              EXPECT_GT(above, 0) << FormName(form.form);
            }
            EXPECT_GT(alpha.tril(-1).abs().max().item().toDouble(), 0);
          }
        });
  }
}

TEST_P(IdentityTest, ARowIsTheMatrixRow) {
  for (const int64_t length : Lengths({1, 5, 64, 257})) {
    VisitLayers(
        at::kDouble, length,
        [&](const Network& network, const BlockAttention& attention) {
          for (const MatrixForm& form : FormsOf(network)) {
            const at::Tensor all = Entries(attention, form, {0, length});
            for (const int64_t row : {int64_t{0}, length / 2, length - 1}) {
              const at::Tensor one = Entries(attention, form, {row, row + 1});
              EXPECT_TRUE(at::allclose(one.select(1, 0), all.select(1, row),
                                       1e-10, 1e-14))
                  << FormName(form.form) << " row " << row << " of " << length;
            }
          }
        });
  }
}

TEST_P(IdentityTest, ReductionsFollowTheirFormulas) {
  const int64_t length = Lengths({65}).front();
  const RowRange rows{2, length};
  VisitLayers(
      at::kDouble, length,
      [&](const Network&, const BlockAttention& attention) {
        const MatrixForm form;
        const at::Tensor alpha = Entries(attention, form, rows);
        const at::Tensor norms = attention.Projection().weight.norm(2, {0});
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
          ChannelReducer reducer(reduction, attention, rows);
          ASSERT_TRUE(attention.Visit(form, rows, reducer, CancelToken()).ok());
          EXPECT_TRUE(at::allclose(reducer.Finish(), matrix, 1e-10, 1e-14))
              << ReductionName(reduction);
        }
      });
}

TEST_P(IdentityTest, VisitStopsWhenCancelled) {
  const int64_t length = Lengths({65}).front();
  const RowRange rows{0, length};
  VisitLayers(
      at::kFloat, length, [&](const Network&, const BlockAttention& attention) {
        CancelToken cancel;
        cancel.Cancel();
        ChannelReducer reducer(ChannelReduction::kMean, attention, rows);
        EXPECT_EQ(attention.Visit({}, rows, reducer, cancel).code(),
                  absl::StatusCode::kCancelled);
      });
}

// Cancels when it sees its first slab.
class Canceller final : public AttentionSink {
 public:
  explicit Canceller(CancelToken* cancel) : cancel_(cancel) {}
  absl::Status OnSlab(const AttentionSlab&) override {
    if (cancel_ != nullptr) cancel_->Cancel();
    ++slabs;
    return absl::OkStatus();
  }
  int slabs = 0;

 private:
  CancelToken* const cancel_;
};

TEST_P(IdentityTest, CancellationIsSeenWithinOneSlab) {
  const int64_t length = Lengths({1024}).front();
  const RowRange rows{0, length};
  int most = 0;
  VisitLayers(
      at::kFloat, length, [&](const Network&, const BlockAttention& attention) {
        Canceller counter(nullptr);
        ASSERT_TRUE(attention.Visit({}, rows, counter, CancelToken()).ok());
        most = std::max(most, counter.slabs);
        if (counter.slabs == 1) return;
        CancelToken cancel;
        Canceller canceller(&cancel);
        EXPECT_EQ(attention.Visit({}, rows, canceller, cancel).code(),
                  absl::StatusCode::kCancelled);
        EXPECT_EQ(canceller.slabs, 1);
      });
  if (most == 1) GTEST_SKIP() << "its pictures are too small for two slabs";
}

INSTANTIATE_TEST_SUITE_P(Architectures, IdentityTest,
                         ::testing::ValuesIn(testing::TinyCases()),
                         [](const ::testing::TestParamInfo<TinyCase>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace limpid
