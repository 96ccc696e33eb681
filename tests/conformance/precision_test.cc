// SPDX-License-Identifier: Apache-2.0
//
// For every listed architecture: what its precisions promise. Matrices
// reproduce their blocks in each, gradients work, and each is as far from
// float32 as its operands are short.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "server/models/layers.h"
#include "tests/support/identity.h"
#include "tests/support/random_network.h"
#include "tests/support/run_method.h"

namespace limpid {
namespace {

using testing::MethodCall;
using testing::TinyCase;

double Distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor exact = b.to(at::kCPU, at::kDouble);
  return ((a.to(at::kCPU, at::kDouble) - exact).norm() / exact.norm())
      .item()
      .toDouble();
}

// A type that weights are stored in, and how far logits may be from float32
// with inputs of that type: at least and at most.
struct Stored {
  at::ScalarType type;
  double least, most;
};
constexpr Stored kStored[] = {{at::kBFloat16, 4e-4, 2e-2},
                              {at::kHalf, 4e-5, 3e-3}};

class PrecisionTest : public ::testing::TestWithParam<TinyCase> {
 protected:
  static std::unique_ptr<const Network> Make(at::ScalarType stored,
                                             at::Device device = at::kCPU) {
    // Somewhat smaller weights than elsewhere: of networks that double what
    // comes in, with every layer, rounding says nothing.
    return testing::MakeStoredNetwork(GetParam(), {device}, stored, 13,
                                      [](const std::string&) { return 0.6; });
  }
  static at::Tensor Embedded(const Network& network) {
    const int64_t length = testing::LengthsOf(network, {33}).front();
    return network.Embed(testing::RandomInput(network, 2, length, 3));
  }
  static at::Tensor Logits(const Network& network) {
    const c10::NoGradGuard no_gradients;
    const auto scores =
        network.Forward(Embedded(network), {}, nullptr, CancelToken());
    EXPECT_TRUE(scores.ok()) << scores.status();
    return network.Logits(*scores).clone();
  }
  // Every layer's matrices applied to its values give its outputs.
  static void ExpectIdentity(const Network& network);
  // All methods' attributions in `network` and in `exact`.
  static void ExpectMethodsNear(const Network& network, const Network& exact,
                                double most);
};

void PrecisionTest::ExpectIdentity(const Network& network) {
  const c10::NoGradGuard no_gradients;
  const at::Tensor e = Embedded(network);
  const RowRange rows{0, e.size(1)};
  double largest = 0;
  const auto scores = network.Forward(
      e, {0},
      [&](int64_t, int64_t, const BlockAttention& attention) {
        for (const AttentionForm name : network.info().forms) {
          const MatrixForm form{name, DefaultIncludeSkip(name)};
          largest = std::max(
              largest,
              testing::IdentityError(testing::Entries(attention, form, rows),
                                     attention.Map(form)));
        }
        return absl::OkStatus();
      },
      CancelToken());
  EXPECT_TRUE(scores.ok()) << scores.status();
  EXPECT_LE(largest, 1e-5);
  EXPECT_GT(largest, 0);
}

void PrecisionTest::ExpectMethodsNear(const Network& network,
                                      const Network& exact, double most) {
  const int64_t length = testing::LengthsOf(network, {17}).front();
  const NetworkInput input = testing::RandomInput(network, 1, length, 5);
  double largest = 0;
  for (const MethodSpec& method : ListedMethods()) {
    MethodCall call;
    call.method = method.name;
    call.position = network.info().modality == Modality::kImage
                        ? network.info().class_token
                        : length - 1;
    call.target.id = 1;
    const at::Tensor values = testing::RunMethod(network, input, call).values;
    const at::Tensor expected = testing::RunMethod(exact, input, call).values;
    EXPECT_TRUE(values.isfinite().all().item().toBool()) << method.name;
    const double distance = Distance(values, expected);
    EXPECT_LE(distance, most) << method.name;
    largest = std::max(largest, distance);
  }
  std::printf("figure: %s: attributions at most %.1e off float32\n",
              GetParam().name.c_str(), largest);
}

TEST_P(PrecisionTest, CheckpointIsAsFarFromFloat32AsItsTypeIsShort) {
  for (const Stored& stored : kStored) {
    const auto network = Make(stored.type);
    const double distance =
        Distance(Logits(network->In(Precision::kCheckpoint)), Logits(*network));
    EXPECT_GE(distance, stored.least) << stored.type;
    EXPECT_LE(distance, stored.most) << stored.type;
    std::printf(
        "figure: %s: logits %.1e off float32 with inputs in %s\n",
        GetParam().name.c_str(), distance,
        network->info().precisions.at(Precision::kCheckpoint).operands.c_str());
  }
}

TEST_P(PrecisionTest, WhatIsFloat32AnywayIsTheSameToTheBit) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const auto network = Make(type);
    const at::Tensor logits = Logits(*network);
    EXPECT_TRUE(at::equal(Logits(network->In(Precision::kFloat32)), logits));
    EXPECT_TRUE(at::equal(Logits(network->In(Precision::kFast)), logits));
    if (type == at::kFloat) {
      EXPECT_TRUE(
          at::equal(Logits(network->In(Precision::kCheckpoint)), logits));
    }
  }
}

TEST_P(PrecisionTest, MatricesReproduceTheirBlocksInEveryOne) {
  for (const Stored& stored : kStored) {
    const auto network = Make(stored.type);
    for (const Precision precision :
         {Precision::kFloat32, Precision::kCheckpoint, Precision::kFast}) {
      ExpectIdentity(network->In(precision));
    }
  }
}

TEST_P(PrecisionTest, EveryMethodWorksInCheckpointPrecision) {
  for (const Stored& stored : kStored) {
    const auto network = Make(stored.type);
    ExpectMethodsNear(network->In(Precision::kCheckpoint), *network,
                      stored.type == at::kHalf ? 0.1 : 0.5);
  }
}

TEST_P(PrecisionTest, OnGpusFastIsNearFloat32AndKeepsTheIdentity) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  const auto network = Make(at::kFloat, at::Device(at::kCUDA, 0));
  const Network& fast = network->In(Precision::kFast);
  const double distance = Distance(Logits(fast), Logits(*network));
  EXPECT_LE(distance, 5e-3);
  std::printf("figure: %s: logits %.1e off float32 in TF32\n",
              GetParam().name.c_str(), distance);
  ExpectIdentity(fast);
  ExpectMethodsNear(fast, *network, 0.2);
}

INSTANTIATE_TEST_SUITE_P(Architectures, PrecisionTest,
                         ::testing::ValuesIn(testing::TinyCases()),
                         [](const ::testing::TestParamInfo<TinyCase>& info) {
                           return info.param.name;
                         });

// One projection in an arithmetic.
at::Tensor ProjectIn(const Arithmetic& arithmetic, const at::Tensor& x,
                     const at::Tensor& weight, const at::Tensor& bias) {
  const LayerVisitor nobody;
  const CancelToken cancel;
  const Pass pass(arithmetic, Differentiation::kFull, nobody, cancel);
  return Project(x, weight, bias, pass);
}

TEST(ProjectTest, InputsAreRoundedAndGradientsPass) {
  at::manual_seed(1);
  const at::Tensor bias = at::randn({7});
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    at::Tensor x = at::randn({2, 3, 5});
    // So small that float16 could not hold the gradients.
    const at::Tensor weight = at::randn({7, 5}) * 1e-9;
    const at::Tensor expected =
        at::linear(x.to(type).to(at::kFloat), weight, bias);
    {
      const c10::NoGradGuard no_gradients;
      EXPECT_TRUE(at::equal(ProjectIn({type}, x, weight, bias), expected));
    }
    const c10::AutoGradMode gradients(true);
    x.requires_grad_(true);
    const at::Tensor out = ProjectIn({type}, x, weight, bias);
    EXPECT_TRUE(at::allclose(out, expected));
    out.sum().backward();
    EXPECT_TRUE(at::allclose(x.grad(), weight.sum(0).expand(x.sizes()), 1e-5,
                             /*atol=*/0));
  }
}

TEST(ProjectTest, ProductsInTf32AreThoseOfShorterOperands) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  at::manual_seed(1);
  const auto on_gpu = at::TensorOptions(at::Device(at::kCUDA, 0));
  const Arithmetic tf32{std::nullopt, true};
  // Inputs whose rows have gaps, of one row, and of one column.
  const std::map<std::string, at::Tensor> inputs = {
      {"plain", at::randn({2, 130, 256}, on_gpu)},
      {"gaps", at::randn({2, 130, 320}, on_gpu).narrow(2, 32, 256)},
      {"one row", at::randn({1, 9, 256}, on_gpu).narrow(1, 4, 1)},
      {"transposed", at::randn({2, 256, 130}, on_gpu).transpose(1, 2)}};
  const at::Tensor weight = at::randn({150, 256}, on_gpu);
  for (const at::Tensor& bias : {at::Tensor(), at::randn({150}, on_gpu)}) {
    for (const auto& [name, input] : inputs) {
      at::Tensor x = input.detach();
      const at::Tensor exact = at::linear(
          x.to(at::kDouble), weight.to(at::kDouble),
          bias.defined() ? std::optional(bias.to(at::kDouble)) : std::nullopt);
      const c10::AutoGradMode gradients(true);
      x.requires_grad_(true);
      const at::Tensor out = ProjectIn(tf32, x, weight, bias);
      EXPECT_LE(Distance(out.detach(), exact), 1e-3) << name;
      if (name == "plain") EXPECT_GE(Distance(out.detach(), exact), 2e-5);
      const at::Tensor direction = at::randn(out.sizes(), on_gpu);
      (out * direction).sum().backward();
      const at::Tensor gradient =
          at::matmul(direction.to(at::kDouble), weight.to(at::kDouble));
      EXPECT_LE(Distance(x.grad(), gradient), 1e-3) << name;
      // What is as short as bfloat16 is multiplied exactly, and added up in
      // float32 as far as tensor cores do.
      const c10::NoGradGuard no_gradients;
      const at::Tensor short_x = x.detach().to(at::kBFloat16).to(at::kFloat);
      const at::Tensor short_weight = weight.to(at::kBFloat16).to(at::kFloat);
      EXPECT_LE(Distance(ProjectIn(tf32, short_x, short_weight, at::Tensor()),
                         at::linear(short_x.to(at::kDouble),
                                    short_weight.to(at::kDouble))),
                1e-5)
          << name;
      // Nothing of it is left for those who asked for float32.
      EXPECT_LE(Distance(ProjectIn({}, x.detach(), weight, bias), exact), 2e-6)
          << name;
    }
  }
}

}  // namespace
}  // namespace limpid
