// SPDX-License-Identifier: Apache-2.0
//
// Numbers at the edge: gates that are shut or wide open, keys of a hundred,
// decays that end in denormals. Nothing may overflow, and the matrix still is
// the block.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <limits>

#include "absl/strings/match.h"
#include "server/models/kernel_ops.h"
#include "server/reduce/sinks.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

using testing::TinyCase;

at::Tensor Matrices(const BlockAttention& attention, const MatrixForm& form,
                    RowRange rows) {
  ChannelCollector collector({}, attention, rows);
  EXPECT_TRUE(attention.Visit(form, rows, collector, CancelToken()).ok());
  return collector.Finish();
}

bool AllFinite(const at::Tensor& tensor) {
  return tensor.isfinite().all().item().toBool();
}

TinyCase CaseOf(const std::string& name) {
  for (const TinyCase& tiny : testing::TinyCases()) {
    if (tiny.name == name) return tiny;
  }
  ADD_FAILURE() << "no such case: " << name;
  return testing::TinyCases().front();
}

// Calls `check` with every layer's attention at a random sequence.
void Visit(const Network& network, int64_t length,
           const std::function<void(const BlockAttention&)>& check) {
  const c10::NoGradGuard no_gradients;
  const auto scores = network.Forward(
      network.Embed(testing::RandomInput(network, 1, length, 3)), {},
      [&](int64_t, int64_t, const BlockAttention& attention) {
        check(attention);
        return absl::OkStatus();
      },
      CancelToken());
  ASSERT_TRUE(scores.ok()) << scores.status();
  EXPECT_TRUE(AllFinite(network.Logits(*scores)));
}

void ExpectIdentity(const BlockAttention& attention, const MatrixForm& form,
                    RowRange rows, double tolerance) {
  const at::Tensor alpha = Matrices(attention, form, rows);
  const BlockMap map = attention.Map(form);
  ASSERT_TRUE(AllFinite(alpha));
  ASSERT_TRUE(AllFinite(map.output));
  const at::Tensor value = map.value.t().unsqueeze(2);
  const auto of_rows = [&](const at::Tensor& tensor) {
    return tensor.narrow(0, rows.begin, rows.size());
  };
  const at::Tensor error = at::bmm(alpha, value).squeeze(2).t() +
                           of_rows(map.bias) - of_rows(map.output);
  const at::Tensor terms = at::bmm(alpha.abs(), value.abs()).max() +
                           map.bias.abs().max() +
                           std::numeric_limits<float>::min();
  EXPECT_LE((error.abs().max() / terms).item().toDouble(), tolerance)
      << FormName(form.form);
}

class ExtremesTest : public ::testing::TestWithParam<TinyCase> {};

// Weights so large that every gate and step is at one of its ends.
TEST_P(ExtremesTest, SaturatedGatesOverALongSequence) {
  if (absl::StrContains(GetParam().config, R"("qk_norm": "sum")")) {
    GTEST_SKIP() << "keys are divided by their sum, which can be zero";
  }
  for (const double scale : {0.01, 30.0}) {
    const auto network = testing::MakeRandomNetwork(
        GetParam(), at::kFloat, 7, [&](const std::string&) { return scale; });
    ASSERT_NE(network, nullptr);
    const int64_t length = testing::LengthsOf(*network, {4096}).front();
    Visit(*network, length, [&](const BlockAttention& attention) {
      ExpectIdentity(attention, {}, {length - 1, length}, 1e-4);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, ExtremesTest,
                         ::testing::ValuesIn(testing::TinyCases()),
                         [](const ::testing::TestParamInfo<TinyCase>& info) {
                           return info.param.name;
                         });

TEST(Rwkv4ExtremesTest, KeysOfAHundred) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const auto network = testing::MakeRandomNetwork(
        CaseOf("rwkv4_0"), dtype, 7, [](const std::string& name) {
          return absl::StrContains(name, "attention.key.weight") ? 100.0 : 1.0;
        });
    double widest = 0;
    Visit(*network, 65, [&](const BlockAttention& attention) {
      const MatrixForm state{AttentionForm::kState, false};
      const at::Tensor rows = Matrices(attention, state, {0, 65});
      EXPECT_TRUE(
          at::allclose(rows.sum(-1), at::ones({}, rows.options()), 1e-5, 1e-5));
      if (dtype == at::kDouble) {
        // Logarithms of a row's weights are its keys but for the decay.
        const at::Tensor weights = rows.select(1, 64);
        widest = std::max(
            widest, -weights.clamp_min(1e-300).log().min().item().toDouble());
      }
      ExpectIdentity(attention, {}, {0, 65}, 1e-5);
      ExpectIdentity(attention, state, {0, 65}, 1e-5);
    });
    if (dtype == at::kDouble) {
      // Keys of both signs, a hundred and more apart from zero.
      EXPECT_GT(widest, 200);
      std::printf("figure: rwkv4: weights of a row from 1 to exp(-%.0f)\n",
                  widest);
    }
  }
}

// Input gates without a soft cap: exponents of several hundred, of both signs.
TEST(MlstmExtremesTest, ExponentialGatesOfHundreds) {
  for (const double exponent : {-400.0, 400.0}) {
    const auto network = testing::MakeRandomNetwork(
        CaseOf("mlstm_1"), at::kFloat, 7, [&](const std::string& name) {
          return absl::EndsWith(name, "ifgate_preact.bias") ? exponent : 1.0;
        });
    Visit(*network, 300, [&](const BlockAttention& attention) {
      ExpectIdentity(attention, {}, {0, 300}, 1e-5);
    });
  }
}

// Powers of a decay pass through the denormals on their way to zero, where
// arithmetic is a hundred times slower: the kernels go straight to zero.
TEST(DenormalsTest, KernelsFlushThem) {
  const auto count = [](const at::Tensor& tensor) {
    const at::Tensor size = tensor.abs();
    return ((size > 0) & (size < std::numeric_limits<float>::min()))
        .sum()
        .item()
        .toLong();
  };
  constexpr int64_t kLength = 300, kHeads = 8, kSize = 8;
  const c10::NoGradGuard no_gradients;
  const at::Tensor ones = at::ones({1, kLength, kHeads, kSize});
  FrozenRecurrence recurrence;
  recurrence.query = recurrence.key = ones;
  recurrence.decay = ones * 0.7;
  at::Tensor value = at::zeros_like(ones);
  value.select(1, 0).fill_(1);
  EXPECT_EQ(count(StateScan(recurrence, value, Packing())), 0);
  at::Tensor heads = at::empty({kHeads, kLength, kLength});
  StateAttention(recurrence, 0, 0, heads);
  EXPECT_EQ(count(heads), 0);

  FrozenSsm ssm;
  ssm.delta = at::ones({kLength, kHeads});
  ssm.a = at::full({kHeads, kSize}, -0.35);
  ssm.b = ssm.c = at::ones({kLength, kSize});
  EXPECT_EQ(
      count(SelectiveScan(ssm, value.select(0, 0).select(2, 0).contiguous())),
      0);
  at::Tensor channels = at::empty({kHeads, kLength, kLength});
  SsmAttention(ssm, {}, 0, 0, channels);
  EXPECT_EQ(count(channels), 0);
}

}  // namespace
}  // namespace limpid
