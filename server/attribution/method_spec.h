// SPDX-License-Identifier: Apache-2.0
//
// What a method is, without computing anything. No Torch.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace limpid {

// An option that a method takes.
struct OptionSpec {
  // Field of MethodOptions, for example "steps".
  std::string name;
  // What it does, default, range.
  std::string description;
};

// A method's description, as ListMethods shows it.
struct MethodSpec {
  std::string name;
  std::string description;
  std::string source;  // paper and equation
  std::vector<OptionSpec> options;
  bool uses_target = false;
  // Its attributions add up to a difference of logits, up to the
  // completeness error that the reply states.
  bool complete = false;
  // Architectures that it serves, and those of them that were compared with no
  // independent implementation.
  std::vector<std::string> architectures;
  std::vector<std::string> experimental_architectures;
};

// Every method that is built in, in the order of the documentation.
const std::vector<MethodSpec>& ListedMethods();
// Null if there is none of that name.
const MethodSpec* FindMethodSpec(absl::string_view name);

}  // namespace limpid
