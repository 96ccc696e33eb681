// SPDX-License-Identifier: Apache-2.0
//
// Reads golden cases: see tests/golden/README.md.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/checkpoint/safetensors.h"
#include "server/models/architecture.h"

namespace limpid::testing {

// One folder under tests/golden/checkpoints.
class GoldenCase {
 public:
  // Fails the test if it can't be read.
  explicit GoldenCase(const std::string& name);

  static std::vector<std::string> Names();

  std::string folder() const { return folder_; }
  // The case's own input, and that of other token ids.
  NetworkInput Input() const;
  static NetworkInput Tokens(const std::vector<int64_t>& ids);
  // L, with the class token.
  int64_t length() const { return Expected("layers.0.y").size(1); }
  int64_t target() const { return target_; }
  int64_t position() const { return position_; }
  // Further sequences: name and ids.
  const std::vector<std::pair<std::string, std::vector<int64_t>>>& extra()
      const {
    return extra_;
  }
  bool Has(const std::string& tensor) const;
  // As float64.
  at::Tensor Expected(const std::string& tensor) const;
  std::unique_ptr<const Network> Load(at::ScalarType dtype) const;

 private:
  std::string folder_;
  std::vector<int64_t> token_ids_;
  int64_t target_ = 0;
  int64_t position_ = 0;
  std::vector<std::pair<std::string, std::vector<int64_t>>> extra_;
  std::unique_ptr<SafetensorsFile> expected_;
};

// ||actual - expected|| / ||expected||, NaN if either is not finite.
double RelativeError(const at::Tensor& actual, const at::Tensor& expected);

}  // namespace limpid::testing
