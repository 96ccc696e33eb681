// SPDX-License-Identifier: Apache-2.0
//
// The JSON header of a safetensors file. Private to this folder.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/checkpoint/safetensors.h"

namespace limpid {

// One tensor as the header describes it; offsets count from the header's end.
struct TensorEntry {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
};

// What is wrong with a file, and the tensor to blame if there is one.
struct Damage {
  std::string what;
  std::string tensor;
};

// Parses the header's text. Checks its form, not whether the offsets fit. False
// if it is damaged, with the reason in `damage`. Memory is proportional to the
// text, stack is constant, whatever the text.
bool ParseSafetensorsHeader(absl::string_view text, SafetensorsHeader& header,
                            Damage& damage);

// False for a name that is none of DTypeName's.
bool DTypeFromName(absl::string_view name, DType& dtype);

}  // namespace limpid
