// SPDX-License-Identifier: Apache-2.0
//
// Fields of a message by their paths, for protocols whose parameters are names
// with loosely typed values.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <string>
#include <variant>

#include "absl/strings/string_view.h"

namespace limpid {

using ParameterValue = std::variant<bool, int64_t, double, std::string>;

// Sets the singular field at `path`, for example "options.steps" or
// "point.target.contrast.id", and returns nothing, or else what is wrong with
// path or value. A number may also be written as text, an enum is the name of
// its value, and a choice without content ("options.baseline.mean") is set by
// `true`. Two kinds of one choice are refused.
std::string SetFieldByPath(absl::string_view path, const ParameterValue& value,
                           google::protobuf::Message& message);

}  // namespace limpid
