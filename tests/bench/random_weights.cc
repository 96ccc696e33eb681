// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/random_weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace limpid::bench {
namespace {

class DrawnWeights final : public WeightReader {
 public:
  using WeightReader::WeightReader;

  at::Tensor Take(const std::vector<std::string>& names,
                  const std::vector<int64_t>& shape) override {
    const at::Tensor drawn =
        Draw(names.front(), shape).to(stored_type()).to(options().dtype);
    bytes_ += static_cast<int64_t>(drawn.nbytes());
    return Keep(drawn);
  }
  at::ScalarType stored_type() const override { return at::kBFloat16; }
  bool Has(const std::string&) const override { return true; }
  std::vector<int64_t> ShapeOf(const std::vector<std::string>&) const override {
    return {};
  }
  absl::Status status() const override { return absl::OkStatus(); }
  int64_t bytes() const { return bytes_; }

 private:
  at::Tensor Draw(const std::string& name, const std::vector<int64_t>& shape) {
    const at::TensorOptions float32 =
        at::TensorOptions(options().device).dtype(at::kFloat);
    if (absl::EndsWith(name, "_log")) {
      // Rates of decay 1, 2, ..., N.
      return at::arange(1, shape.back() + 1, float32)
          .log()
          .expand(shape)
          .contiguous();
    }
    if (absl::EndsWith(name, "dt_proj.bias") ||
        absl::EndsWith(name, "dt_proj_b.bias") ||
        absl::EndsWith(name, "dt_bias")) {
      // softplus of it is from 0.001 to 0.1, evenly in its logarithm.
      const at::Tensor step =
          at::exp(at::rand(shape, float32) * std::log(100.0) + std::log(0.001));
      return step + at::log(-at::expm1(-step));
    }
    const bool norm = absl::StrContains(name, "norm") ||
                      absl::StrContains(name, "ln") ||
                      absl::EndsWith(name, ".D") || absl::EndsWith(name, "D_b");
    if (absl::EndsWith(name, "bias")) return at::zeros(shape, float32);
    if (norm) return at::ones(shape, float32);
    if (absl::StrContains(name, "time_mix")) return at::rand(shape, float32);
    const double fan_in = shape.empty() ? 1 : static_cast<double>(shape.back());
    return at::randn(shape, float32) * std::min(0.5, 1 / std::sqrt(fan_in));
  }

  int64_t bytes_ = 0;
};

}  // namespace

absl::StatusOr<RandomNetwork> MakeNetwork(const std::string& config,
                                          const BuildOptions& options) {
  LIMPID_ASSIGN_OR_RETURN(HfConfig parsed,
                          HfConfig::Parse(config, "config.json"));
  const std::string type = parsed.String("model_type", "");
  at::manual_seed(1);
  for (const ArchitectureSpec& spec : ListedArchitectures()) {
    if (std::find(spec.model_types.begin(), spec.model_types.end(), type) ==
        spec.model_types.end()) {
      continue;
    }
    DrawnWeights weights(options);
    RandomNetwork out;
    LIMPID_ASSIGN_OR_RETURN(out.network, spec.build(parsed, weights));
    out.weight_bytes = weights.bytes();
    return out;
  }
  return absl::NotFoundError(absl::StrCat("no architecture ", type));
}

}  // namespace limpid::bench
