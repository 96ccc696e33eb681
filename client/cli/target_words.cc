// SPDX-License-Identifier: Apache-2.0
#include "client/cli/target_words.h"

#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/cli/flag_values.h"

namespace limpid::cli {

std::string TargetWords(
    const v1::Target& target,
    const google::protobuf::RepeatedPtrField<v1::Candidate>& candidates) {
  const auto name = [&candidates](int64_t id) {
    for (const v1::Candidate& candidate : candidates) {
      const auto piece = absl::StripAsciiWhitespace(candidate.piece());
      if (candidate.id() == id && !piece.empty()) {
        return absl::StrCat(piece, " (", id, ")");
      }
    }
    return absl::StrCat(id);
  };
  switch (target.kind_case()) {
    case v1::Target::kContrast:
      return absl::StrCat("logit of ", name(target.contrast().id()),
                          " minus that of ",
                          name(target.contrast().baseline_id()));
    case v1::Target::kTokenId:
      return absl::StrCat("logit of token ", name(target.token_id()));
    case v1::Target::kClassId:
      return absl::StrCat("logit of class ", name(target.class_id()));
    default:
      return FormatTarget(target);
  }
}

}  // namespace limpid::cli
