// SPDX-License-Identifier: Apache-2.0
#include "tests/support/random_network.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <random>

namespace limpid::testing {
namespace {

class RandomWeights final : public WeightReader {
 public:
  RandomWeights(const BuildOptions& options, uint64_t seed,
                const WeightScale& scale, at::ScalarType stored)
      : WeightReader(options), random_(seed), scale_(scale), stored_(stored) {}

  at::Tensor Take(const std::vector<std::string>& names,
                  const std::vector<int64_t>& shape) override {
    at::Tensor tensor = at::empty(shape, at::kDouble);
    std::uniform_real_distribution<double> uniform(-0.8, 0.8);
    double* const data = tensor.mutable_data_ptr<double>();
    for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = uniform(random_);
    // Norms and skips near one, so that no layer is nearly dead.
    if (shape.size() == 1) tensor.add_(0.7);
    if (scale_) tensor.mul_(scale_(names.front()));
    return Keep(tensor.to(stored_).to(options().dtype).to(device()));
  }
  at::ScalarType stored_type() const override { return stored_; }
  bool Has(const std::string&) const override { return true; }
  std::vector<int64_t> ShapeOf(const std::vector<std::string>&) const override {
    return {};
  }
  absl::Status status() const override { return absl::OkStatus(); }

 private:
  std::mt19937_64 random_;
  const WeightScale& scale_;
  const at::ScalarType stored_;
};

}  // namespace

std::vector<TinyCase> TinyCases() {
  std::vector<TinyCase> cases;
  for (const ArchitectureSpec& spec : ListedArchitectures()) {
    for (size_t i = 0; i < spec.tiny_configs.size(); ++i) {
      cases.push_back(
          {&spec, spec.tiny_configs[i], spec.id + "_" + std::to_string(i)});
    }
  }
  return cases;
}

std::unique_ptr<const Network> MakeRandomNetwork(const TinyCase& tiny,
                                                 at::ScalarType dtype,
                                                 uint64_t seed,
                                                 const WeightScale& scale,
                                                 at::Device device) {
  return MakeRandomNetwork(tiny, {device, dtype}, seed, scale);
}

std::unique_ptr<const Network> MakeRandomNetwork(const TinyCase& tiny,
                                                 const BuildOptions& options,
                                                 uint64_t seed,
                                                 const WeightScale& scale) {
  return MakeStoredNetwork(tiny, options, options.dtype, seed, scale);
}

std::unique_ptr<const Network> MakeStoredNetwork(const TinyCase& tiny,
                                                 const BuildOptions& options,
                                                 at::ScalarType stored,
                                                 uint64_t seed,
                                                 const WeightScale& scale) {
  auto parsed = HfConfig::Parse(tiny.config, "config.json");
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  if (!parsed.ok()) return nullptr;
  RandomWeights weights(options, seed, scale, stored);
  auto network = tiny.spec->build(*parsed, weights);
  EXPECT_TRUE(network.ok()) << network.status();
  return network.ok() ? *std::move(network) : nullptr;
}

NetworkInput RandomInput(const Network& network, int64_t batch, int64_t length,
                         uint64_t seed) {
  std::mt19937_64 random(seed);
  const ModelInfo& info = network.info();
  NetworkInput input;
  if (info.modality == Modality::kImage) {
    std::normal_distribution<double> normal;
    input.pixels =
        at::empty({batch, 3, info.image_height, info.image_width}, at::kDouble);
    double* const values = input.pixels.mutable_data_ptr<double>();
    for (int64_t i = 0; i < input.pixels.numel(); ++i) {
      values[i] = normal(random);
    }
    return input;
  }
  std::uniform_int_distribution<int64_t> uniform(0, info.vocabulary_size - 1);
  input.token_ids = at::empty({batch, length}, at::kLong);
  int64_t* const ids = input.token_ids.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < input.token_ids.numel(); ++i) {
    ids[i] = uniform(random);
  }
  return input;
}

std::vector<int64_t> LengthsOf(const Network& network,
                               std::vector<int64_t> lengths) {
  const ModelInfo& info = network.info();
  if (info.modality == Modality::kText) return lengths;
  return {info.grid_rows * info.grid_columns + 1};
}

}  // namespace limpid::testing
