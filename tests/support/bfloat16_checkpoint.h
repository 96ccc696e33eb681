// SPDX-License-Identifier: Apache-2.0
//
// Model folders with weights of a shorter type.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "server/checkpoint/checkpoint.h"

namespace limpid::testing {

// Copies a folder with float32 weights to `copy`, which is made, with weights
// cut to bfloat16.
inline void CopyAsBfloat16(const std::string& folder, const std::string& copy) {
  namespace fs = std::filesystem;
  fs::copy(folder, copy);
  const auto checkpoint = Checkpoint::Open(folder);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<std::vector<uint16_t>> storage;
  storage.reserve(checkpoint->tensors().size());
  std::map<std::string, TensorView> views;
  for (const auto& [name, tensor] : checkpoint->tensors()) {
    ASSERT_EQ(tensor.dtype, DType::kFloat32) << name;
    std::vector<uint16_t>& halves =
        storage.emplace_back(tensor.data.size() / sizeof(float));
    for (size_t i = 0; i < halves.size(); ++i) {
      // The upper half of each number.
      std::memcpy(&halves[i], tensor.data.data() + i * sizeof(float) + 2, 2);
    }
    TensorView& view = views[name] = tensor;
    view.dtype = DType::kBFloat16;
    view.data = std::as_bytes(std::span(halves));
  }
  const absl::Status written =
      WriteSafetensors(copy + "/model.safetensors", views, {});
  ASSERT_TRUE(written.ok()) << written;
}

}  // namespace limpid::testing
