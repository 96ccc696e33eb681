// SPDX-License-Identifier: Apache-2.0
//
// For every listed architecture: a checkpoint whose tensors are its own loads,
// and each tensor that is missing, misshapen, of a wrong type or not finite is
// named.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <span>

#include "server/models/loader.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::TinyCase;

// Notes which tensors a builder wants, in the layout that it names first.
class NotedWeights final : public WeightReader {
 public:
  NotedWeights() : WeightReader({at::kCPU, at::kFloat}) {}

  at::Tensor Take(const std::vector<std::string>& names,
                  const std::vector<int64_t>& shape) override {
    wanted[names.front()] = shape;
    return Keep(at::full(shape, 0.5));
  }
  absl::Status status() const override { return absl::OkStatus(); }
  bool Has(const std::string& name) const override {
    optional.insert(name);
    return true;
  }
  std::vector<int64_t> ShapeOf(const std::vector<std::string>&) const override {
    return {};
  }

  std::map<std::string, std::vector<int64_t>> wanted;
  // Names that tell layouts apart: without them it is another one.
  mutable std::set<std::string> optional;
};

class WeightsTest : public ::testing::TestWithParam<TinyCase> {
 protected:
  WeightsTest() {
    std::string pattern = ::testing::TempDir() + "/limpid-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    std::ofstream(folder_ / "config.json") << GetParam().config;
  }
  ~WeightsTest() override { fs::remove_all(folder_); }

  // What loading answers to these tensors: all zero on the meta device, which
  // reads no weight, or on the CPU all 0.5 but for one's last number.
  absl::Status Load(const std::map<std::string, std::vector<int64_t>>& tensors,
                    const std::string& integral = "") {
    return LoadValues(tensors, integral, {at::kMeta, at::kFloat}, "", 0);
  }
  absl::Status LoadWith(
      const std::map<std::string, std::vector<int64_t>>& tensors,
      const std::string& changed, float last) {
    return LoadValues(tensors, "", {at::kCPU, at::kFloat}, changed, last);
  }

  absl::Status LoadValues(
      const std::map<std::string, std::vector<int64_t>>& tensors,
      const std::string& integral, const BuildOptions& options,
      const std::string& changed, float last) {
    std::vector<std::vector<float>> storage;
    storage.reserve(tensors.size());
    std::map<std::string, TensorView> views;
    for (const auto& [name, shape] : tensors) {
      int64_t count = 1;
      for (const int64_t size : shape) count *= size;
      std::vector<float>& numbers =
          storage.emplace_back(count, options.device.is_meta() ? 0.0f : 0.5f);
      if (name == changed) numbers.back() = last;
      TensorView view;
      view.dtype = name == integral ? DType::kInt32 : DType::kFloat32;
      view.shape = shape;
      view.data = std::as_bytes(std::span(storage.back()));
      views[name] = view;
    }
    const absl::Status written =
        WriteSafetensors((folder_ / "model.safetensors").string(), views, {});
    EXPECT_TRUE(written.ok()) << written;
    const auto checkpoint = Checkpoint::Open(folder_.string());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return LoadNetwork(*checkpoint, options).status();
  }

  fs::path folder_;
};

TEST_P(WeightsTest, WrongTensorsAreNamed) {
  auto config = HfConfig::Parse(GetParam().config, "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  NotedWeights noted;
  ASSERT_TRUE(GetParam().spec->build(*config, noted).ok());
  const auto& wanted = noted.wanted;
  const absl::Status whole = Load(wanted);
  ASSERT_TRUE(whole.ok()) << whole;

  const auto expect_named = [&](const absl::Status& status,
                                const std::string& name,
                                const std::string& what) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << name << status;
    EXPECT_EQ(GetErrorDetails(status).reason, "CHECKPOINT_MISMATCH") << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    EXPECT_THAT(std::string(status.message()), HasSubstr(what)) << name;
  };
  int checked = 0;
  for (const auto& [name, shape] : wanted) {
    if (noted.optional.count(name) > 0) continue;
    auto tensors = wanted;
    tensors.erase(name);
    tensors[name + ".renamed"] = shape;
    expect_named(Load(tensors), name, "is missing");
    tensors = wanted;
    tensors[name].push_back(2);
    expect_named(Load(tensors), name, "has shape");
    expect_named(Load(wanted, name), name, "has dtype I32");
    ++checked;
  }
  EXPECT_GT(checked, 5);
}

TEST_P(WeightsTest, TensorsThatAreNotFiniteAreNamed) {
  auto config = HfConfig::Parse(GetParam().config, "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  NotedWeights noted;
  ASSERT_TRUE(GetParam().spec->build(*config, noted).ok());
  const auto& wanted = noted.wanted;
  const absl::Status whole = LoadWith(wanted, "", 0);
  ASSERT_TRUE(whole.ok()) << whole;
  for (const auto& [name, shape] : wanted) {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(),
                              -std::numeric_limits<float>::infinity()}) {
      const absl::Status status = LoadWith(wanted, name, value);
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << name << status;
      const ErrorDetails details = GetErrorDetails(status);
      EXPECT_EQ(details.reason, "WEIGHTS_NOT_FINITE") << name;
      EXPECT_EQ(details.metadata.at("tensor"), name);
      EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, WeightsTest,
                         ::testing::ValuesIn(testing::TinyCases()),
                         [](const ::testing::TestParamInfo<TinyCase>& info) {
                           return info.param.name;
                         });

}  // namespace
}  // namespace limpid
