// SPDX-License-Identifier: Apache-2.0
//
// On a GPU the attention of large layers is looked at while the next layer is
// computed: what comes of it has the same bits as when every layer waits for
// its visitor. Skipped without a GPU.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/reduce/sinks.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

struct Outcome {
  std::vector<at::Tensor> matrices, errors;  // of layers
  at::Tensor logits;
};

// Positions that make the smallest of the networks below large.
constexpr int64_t kLength = 1100;

Outcome LookAtLayers(const Network& network, const NetworkInput& input,
                     bool waits) {
  Outcome out;
  const auto visitor = [&](int64_t, int64_t, const BlockAttention& attention) {
    const RowRange rows{0, attention.num_positions()};
    ReconstructionMeter meter(attention, MatrixForm(), rows);
    ChannelReducer reducer(ChannelReduction::kMeanAbs, attention, rows);
    const absl::Status status = ReduceChannels(
        attention, MatrixForm(), rows, {&reducer}, &meter, CancelToken());
    out.matrices.push_back(reducer.Finish());
    out.errors.push_back(meter.Finish());
    if (waits) (void)out.errors.back().item();
    return status;
  };
  const auto logits = network.Forward(network.Embed(input), {kLength - 1},
                                      visitor, CancelToken());
  EXPECT_TRUE(logits.ok()) << logits.status();
  if (logits.ok()) out.logits = *logits;
  return out;
}

TEST(DeviceAsideTest, LayersThatDoNotWaitGetWhatThoseThatWaitGet) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  const std::vector<std::string> configs = {
      R"({"model_type": "mamba", "vocab_size": 50, "hidden_size": 256,
          "state_size": 16, "num_hidden_layers": 6})",
      R"({"model_type": "mamba2", "vocab_size": 50, "hidden_size": 256,
          "num_heads": 8, "head_dim": 64, "n_groups": 1, "state_size": 32,
          "num_hidden_layers": 6})",
      R"({"model_type": "rwkv", "vocab_size": 50, "hidden_size": 512,
          "num_hidden_layers": 6})"};
  for (const std::string& config : configs) {
    SCOPED_TRACE(config);
    testing::TinyCase large;
    large.config = config;
    large.name = "large";
    for (const testing::TinyCase& tiny : testing::TinyCases()) {
      const std::string& type = tiny.spec->model_types.front();
      if (config.find("\"" + type + "\"") != std::string::npos) {
        large.spec = tiny.spec;
      }
    }
    const auto network = testing::MakeRandomNetwork(large, at::kFloat,
                                                    /*seed=*/5, {}, at::kCUDA);
    ASSERT_NE(network, nullptr);
    const NetworkInput input =
        testing::RandomInput(*network, 1, kLength, /*seed=*/6);
    const Outcome expected = LookAtLayers(*network, input, /*waits=*/true);
    for (const at::Tensor& error : expected.errors) {
      EXPECT_LE(error.item().toDouble(), 1e-5);
    }
    for (int round = 0; round < 10; ++round) {
      const Outcome out = LookAtLayers(*network, input, /*waits=*/false);
      ASSERT_EQ(out.matrices.size(), expected.matrices.size());
      for (size_t layer = 0; layer < out.matrices.size(); ++layer) {
        EXPECT_TRUE(at::equal(out.matrices[layer], expected.matrices[layer]))
            << "layer " << layer << ", round " << round;
        EXPECT_TRUE(at::equal(out.errors[layer], expected.errors[layer]))
            << "layer " << layer << ", round " << round;
      }
      EXPECT_TRUE(at::equal(out.logits, expected.logits));
    }
  }
}

}  // namespace
}  // namespace limpid
