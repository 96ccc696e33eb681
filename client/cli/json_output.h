// SPDX-License-Identifier: Apache-2.0
//
// Replies as JSON: messages in Protobuf's own mapping with all keys present,
// tensors as nested lists of numbers. NaN and infinities are the strings that
// Protobuf's mapping uses ("NaN", "Infinity", "-Infinity").
#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/explanation.h"

namespace limpid::cli {

// A message on one line. DATA_LOSS for one that JSON can't say.
absl::StatusOr<std::string> MessageJson(
    const google::protobuf::Message& message);

// Appends a tensor: nested lists by its shape, [] if it has no elements.
absl::Status AppendTensorJson(const v1::Tensor& tensor, std::string& out);

// {"header": ..., "summary": ..., "tensors": {NAME: ...}} on one line.
absl::StatusOr<std::string> ExplanationJson(const Explanation& explanation);

// {"code": ..., "reason": ..., "message": ..., "violations": [...], ...}
std::string ErrorJson(const absl::Status& status);

// On one line; bytes that are not UTF-8 become U+FFFD.
std::string Dump(const nlohmann::json& json);

// Text as a JSON string with its quotes, the same way.
std::string QuotedJson(const std::string& text);

}  // namespace limpid::cli
