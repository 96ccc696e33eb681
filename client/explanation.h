// SPDX-License-Identifier: Apache-2.0
//
// A received explanation, and how its parts are told while they come.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "limpid/v1/explanation.pb.h"

namespace limpid {

// An explanation with its tensors put together and checked: every byte has come
// and every checksum fits.
struct Explanation {
  v1::ExplanationHeader header;
  v1::ExplanationSummary summary;
  // By name; `data` holds the packed elements as header.layout says (or
  // `floats` holds them). client/tensor_codec.h makes plain numbers of them.
  std::map<std::string, v1::Tensor> tensors;
};

// Told of each part of a streamed explanation as it comes, in the thread that
// made the call; all may be empty.
struct StreamObserver {
  std::function<void(const v1::ExplanationHeader&)> on_header;
  std::function<void(const v1::Progress&)> on_progress;
  std::function<void(const v1::Tensor&)> on_tensor;  // complete and checked
};

}  // namespace limpid
