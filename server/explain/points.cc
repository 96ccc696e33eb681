// SPDX-License-Identifier: Apache-2.0
#include "server/explain/points.h"

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

constexpr size_t kMostPoints = 256;

int64_t ReadPosition(const std::string& path, const Position& position,
                     int64_t length, const ModelInfo& info,
                     Violations& violations) {
  switch (position.kind) {
    case Position::Kind::kIndex:
      // An input without tokens has a violation of its own.
      if (position.index < 0 || (length > 0 && position.index >= length)) {
        violations.Add(path + ".index",
                       absl::StrCat("is ", position.index,
                                    ", must be from 0 to ", length - 1));
      }
      return position.index;
    case Position::Kind::kClassToken:
      if (info.modality != Modality::kImage) {
        violations.Add(path + ".class_token",
                       "is for vision models; this one takes index or last");
        return length - 1;
      }
      return info.class_token;
    case Position::Kind::kDefault:
      return info.modality == Modality::kImage ? info.class_token : length - 1;
    case Position::Kind::kLast:
      break;
  }
  return length - 1;
}

Target ReadTarget(const std::string& path, const Target& target,
                  int64_t position, const ReadResult& input,
                  const ModelInfo& info, Violations& violations) {
  const int64_t last = info.vocabulary_size - 1;
  const bool classes = info.modality == Modality::kImage;
  const auto check = [&](const char* field, int64_t id) {
    if (id < 0 || id > last) {
      violations.Add(path + field,
                     absl::StrCat(classes ? "class id " : "token id ", id,
                                  ", must be from 0 to ", last));
    }
  };
  switch (target.kind) {
    case Target::Kind::kPredicted:
      break;
    case Target::Kind::kToken:
      if (classes) {
        violations.Add(path + ".token_id",
                       "is for models with tokens; this one has classes: use "
                       "class_id");
      } else {
        check(".token_id", target.id);
      }
      break;
    case Target::Kind::kClass:
      if (classes) {
        check(".class_id", target.id);
      } else {
        violations.Add(path + ".class_id",
                       "is for models with classes; this one has tokens: use "
                       "token_id");
      }
      break;
    case Target::Kind::kContrast:
      check(".contrast.id", target.id);
      check(".contrast.baseline_id", target.baseline_id);
      if (target.id == target.baseline_id) {
        violations.Add(path + ".contrast.baseline_id",
                       "must differ from contrast.id");
      }
      break;
    case Target::Kind::kNext: {
      if (classes) {
        violations.Add(path + ".next", "is for models that read text");
        break;
      }
      const auto next = static_cast<size_t>(position) + 1;
      if (position >= 0 && next < input.tokens.size()) {
        return {Target::Kind::kToken, input.tokens[next].id, 0};
      }
      violations.Add(path + ".next",
                     "no token of the input follows the position");
      break;
    }
  }
  return target;
}

}  // namespace

std::vector<PlannedPoint> ReadPoints(const std::vector<Point>& points,
                                     const ReadResult& input,
                                     const ModelInfo& info,
                                     Violations& violations) {
  if (points.size() > kMostPoints) {
    violations.Add("points",
                   absl::StrCat("has ", points.size(), " points, the limit is ",
                                kMostPoints));
    return {};
  }
  std::vector<PlannedPoint> planned;
  for (size_t i = 0; i < points.size(); ++i) {
    const std::string path = absl::StrCat("points[", i, "]");
    PlannedPoint point;
    point.position = ReadPosition(path + ".position", points[i].position,
                                  input.length, info, violations);
    point.target = ReadTarget(path + ".target", points[i].target,
                              point.position, input, info, violations);
    planned.push_back(point);
  }
  return planned;
}

}  // namespace limpid
