// SPDX-License-Identifier: Apache-2.0
//
// Parts of validate.h, one per nested message.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/validate.h"

namespace limpid::validate {

// Adds to the lists of a ValidatedRequest.
class Fields {
 public:
  explicit Fields(ValidatedRequest& out) : out_(out) {}

  void Wrong(absl::string_view field, absl::string_view what) {
    out_.violations.push_back({std::string(field), std::string(what)});
  }
  void StandIn(absl::string_view field) { out_.stand_ins.emplace_back(field); }

  // Whether `value` is in range; notes it if not.
  template <typename T>
  bool InRange(absl::string_view field, T value, T low, T high) {
    if (value >= low && value <= high) return true;
    Wrong(field, absl::StrCat(value, " is not in ", low, " to ", high));
    return false;
  }
  template <typename T>
  bool AtLeast(absl::string_view field, T value, T low) {
    if (value >= low) return true;
    Wrong(field, absl::StrCat(value, " is not ", low, " or more"));
    return false;
  }

  // `value` if the enum knows it and it is not the zero one; else notes the
  // allowed names without the prefix that they share.
  template <typename Enum>
  bool Known(absl::string_view field, Enum value,
             const google::protobuf::EnumDescriptor& type) {
    if (value != 0 && type.FindValueByNumber(value) != nullptr) return true;
    std::string names;
    for (int i = 1; i < type.value_count(); ++i) {
      absl::StrAppend(&names, i > 1 ? ", " : "", type.value(i)->name());
    }
    const auto* given = type.FindValueByNumber(value);
    Wrong(field,
          absl::StrCat(given != nullptr ? given->name() : absl::StrCat(value),
                       " is not one of ", names));
    return false;
  }

 private:
  ValidatedRequest& out_;
};

Input ReadInput(const v1::ExplainRequest& message, Fields& fields);
MethodOptions ReadOptions(const v1::MethodOptions& message, Fields& fields);
// At least one point.
std::vector<Point> ReadPoints(
    const google::protobuf::RepeatedPtrField<v1::Point>& messages,
    Fields& fields);
// Empty if it is wrong.
std::optional<Baseline> ReadBaseline(const std::string& path,
                                     const v1::Baseline& message,
                                     Fields& fields);
AttentionRequest ReadAttention(const v1::AttentionOptions& message,
                               Fields& fields);

// The pixels of a tensor [3, H, W]; false with the mistakes noted.
bool ReadPixels(const v1::Tensor& tensor, Fields& fields, PixelInput& pixels);

}  // namespace limpid::validate
