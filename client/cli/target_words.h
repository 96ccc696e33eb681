// SPDX-License-Identifier: Apache-2.0
//
// An explained target in words.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <string>

#include "limpid/v1/explanation.pb.h"

namespace limpid::cli {

// "logit of cat (7) minus that of dog (8)": tokens and classes by the names
// that they have among the candidates, others by their number. Empty for no
// target.
std::string TargetWords(
    const v1::Target& target,
    const google::protobuf::RepeatedPtrField<v1::Candidate>& candidates);

}  // namespace limpid::cli
