// SPDX-License-Identifier: Apache-2.0
//
// Values of flags as text, made into fields of a request. Only what can't be
// understood or held by the field is refused (INVALID_ARGUMENT; the message
// says what came and what can be written); whether a value makes sense is the
// server's to judge.
#pragma once

#include <google/protobuf/descriptor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "limpid/v1/explanation.pb.h"

namespace limpid::cli {

// predicted | next | token:ID | class:ID | contrast:ID,ID
absl::StatusOr<v1::Target> ParseTarget(const std::string& text);
// The opposite, for a resolved target; empty if none is set.
std::string FormatTarget(const v1::Target& target);

// N | last | cls, or several numbers as in 3-6,9.
absl::StatusOr<std::vector<v1::Position>> ParsePositions(
    const std::string& text);

// 0-3,7: numbers and ascending ranges.
absl::StatusOr<std::vector<int32_t>> ParseNumbers(const std::string& text);

// token | word | span:0-3,7 | region:ROWSxCOLUMNS,... such as region:0-1x2-5;
// ranges hold both ends.
absl::StatusOr<v1::Aggregation> ParseAggregation(const std::string& text);

// 1,2,3; empty text gives no ids.
absl::StatusOr<std::vector<int64_t>> ParseTokenIds(const std::string& text);

// 500ms, 30s, 1m30s, inf, or a number of seconds.
absl::StatusOr<absl::Duration> ParseDeadline(const std::string& text);

absl::StatusOr<int64_t> ParseInt64(const std::string& text);
absl::StatusOr<int32_t> ParseInt32(const std::string& text);
absl::StatusOr<bool> ParseBool(const std::string& text);

// zero | mean | token:ID | tokens:ID,ID,... | blur
absl::StatusOr<v1::Baseline> ParseBaseline(const std::string& text);

// The number of an enum's value by the name that people write: "mean-abs" for
// CHANNEL_REDUCTION_MEAN_ABS. The rejected zero value has no such name.
absl::StatusOr<int> ParseEnum(const google::protobuf::EnumDescriptor* type,
                              const std::string& text);
// All names of an enum, as in "none, row, matrix".
std::string EnumNames(const google::protobuf::EnumDescriptor* type);

// NAME=VALUE into the field of MethodOptions with that name; "-" may stand for
// "_" in it.
absl::Status SetMethodOption(const std::string& name_value,
                             v1::MethodOptions& options);
// All names, as in "steps, baseline, ...".
std::string MethodOptionNames();

}  // namespace limpid::cli
