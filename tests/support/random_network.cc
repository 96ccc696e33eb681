// SPDX-License-Identifier: Apache-2.0
#include "tests/support/random_network.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <random>

namespace limpid::testing {
namespace {

class RandomWeights final : public WeightReader {
 public:
  RandomWeights(const BuildOptions& options, uint64_t seed)
      : WeightReader(options), random_(seed) {}

  at::Tensor Take(const std::vector<std::string>&,
                  const std::vector<int64_t>& shape) override {
    at::Tensor tensor = at::empty(shape, at::kDouble);
    std::uniform_real_distribution<double> uniform(-0.8, 0.8);
    double* const data = tensor.mutable_data_ptr<double>();
    for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = uniform(random_);
    // Norms and skips near one, so that no layer is nearly dead.
    if (shape.size() == 1) tensor.add_(0.7);
    return tensor.to(options().dtype).to(options().device);
  }
  absl::Status status() const override { return absl::OkStatus(); }

 private:
  std::mt19937_64 random_;
};

}  // namespace

std::unique_ptr<const Network> MakeRandomNetwork(const ArchitectureSpec& spec,
                                                 const std::string& config,
                                                 at::ScalarType dtype,
                                                 uint64_t seed) {
  auto parsed = HfConfig::Parse(config, "config.json");
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  if (!parsed.ok()) return nullptr;
  RandomWeights weights({at::kCPU, dtype}, seed);
  auto network = spec.build(*parsed, weights);
  EXPECT_TRUE(network.ok()) << network.status();
  return network.ok() ? *std::move(network) : nullptr;
}

at::Tensor RandomTokens(const Network& network, int64_t batch, int64_t length,
                        uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<int64_t> uniform(
      0, network.info().vocabulary_size - 1);
  at::Tensor tokens = at::empty({batch, length}, at::kLong);
  int64_t* const ids = tokens.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < tokens.numel(); ++i) ids[i] = uniform(random);
  return tokens;
}

}  // namespace limpid::testing
