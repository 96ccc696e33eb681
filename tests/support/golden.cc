// SPDX-License-Identifier: Apache-2.0
#include "tests/support/golden.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "server/models/loader.h"

namespace limpid::testing {
namespace {

std::string Root() { return std::string(LIMPID_TEST_DATA) + "/checkpoints"; }

}  // namespace

std::vector<std::string> GoldenCase::Names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(Root())) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

GoldenCase::GoldenCase(const std::string& name) : folder_(Root() + "/" + name) {
  std::ifstream file(folder_ + "/inputs.json");
  const auto inputs = nlohmann::json::parse(file);
  token_ids_ = inputs.value("token_ids", std::vector<int64_t>());
  target_ = inputs.at("target");
  position_ = inputs.at("position");
  for (const auto& item : inputs.value("extra", nlohmann::json::array())) {
    extra_.emplace_back(item.at("name"),
                        item.at("token_ids").get<std::vector<int64_t>>());
  }
  auto opened = SafetensorsFile::Open(folder_ + "/expected.safetensors");
  EXPECT_TRUE(opened.ok()) << opened.status();
  if (opened.ok()) {
    expected_ = std::make_unique<SafetensorsFile>(*std::move(opened));
  }
}

NetworkInput GoldenCase::Tokens(const std::vector<int64_t>& ids) {
  return {at::tensor(ids, at::kLong).unsqueeze(0), at::Tensor()};
}

NetworkInput GoldenCase::Input() const {
  if (!token_ids_.empty()) return Tokens(token_ids_);
  return {at::Tensor(), Expected("pixels").unsqueeze(0)};
}

bool GoldenCase::Has(const std::string& tensor) const {
  return expected_->tensors().count(tensor) > 0;
}

at::Tensor GoldenCase::Expected(const std::string& tensor) const {
  const TensorView& view = expected_->tensors().at(tensor);
  at::Tensor out = at::empty(
      view.shape, view.dtype == DType::kFloat64 ? at::kDouble : at::kFloat);
  std::memcpy(out.mutable_data_ptr(), view.data.data(), view.data.size());
  return out.to(at::kDouble);
}

std::unique_ptr<const Network> GoldenCase::Load(at::ScalarType dtype) const {
  auto checkpoint = Checkpoint::Open(folder_);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  auto network = LoadNetwork(*checkpoint, {at::kCPU, dtype});
  EXPECT_TRUE(network.ok()) << network.status();
  return *std::move(network);
}

double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor a = actual.to(at::kDouble), b = expected.to(at::kDouble);
  return ((a - b).norm() / b.norm().clamp_min(1e-300)).item().toDouble();
}

}  // namespace limpid::testing
