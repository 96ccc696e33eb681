// SPDX-License-Identifier: Apache-2.0
//
// Input and the points of a request.
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "server/rpc/validate_fields.h"

namespace limpid::validate {
namespace {

// A valid input for models of text, so that the rest can be judged.
Input InputStandIn(Fields& fields) {
  fields.StandIn("input");
  return TokenInput{{0}};
}

Input ReadTokens(const v1::TokenIds& message, Fields& fields) {
  if (message.ids().empty()) {
    fields.Wrong("input.tokens.ids", "empty; give at least one token id");
    return InputStandIn(fields);
  }
  TokenInput tokens;
  tokens.ids.assign(message.ids().begin(), message.ids().end());
  return tokens;
}

absl::Status CheckPixelHeader(const v1::Tensor& tensor, int64_t& num_elements) {
  const v1::TensorHeader& header = tensor.header();
  Violations wrong;
  if (header.data_type() != v1::DATA_TYPE_UNSPECIFIED &&
      header.data_type() != v1::DATA_TYPE_FLOAT32) {
    wrong.Add("input.pixels.header.data_type", "pixels are DATA_TYPE_FLOAT32");
  }
  if (header.layout() != v1::TENSOR_LAYOUT_UNSPECIFIED &&
      header.layout() != v1::TENSOR_LAYOUT_ROW_MAJOR) {
    wrong.Add("input.pixels.header.layout",
              "pixels are TENSOR_LAYOUT_ROW_MAJOR");
  }
  constexpr int64_t kMaxSide = 1 << 16;
  const auto side_ok = [](int64_t side) {
    return side >= 1 && side <= kMaxSide;
  };
  if (header.shape_size() != 3 || header.shape(0) != 3 ||
      !side_ok(header.shape(1)) || !side_ok(header.shape(2))) {
    wrong.Add("input.pixels.header.shape",
              "pixels have the shape [3, H, W], H and W 1 to 65536");
  } else {
    num_elements = 3 * header.shape(1) * header.shape(2);
  }
  return wrong.ToStatus();
}

// Where element i is, as people count.
std::string PixelName(const v1::TensorHeader& header, int64_t i) {
  const int64_t width = header.shape(2), plane = header.shape(1) * width;
  return absl::StrCat("[", i / plane, ", ", i % plane / width, ", ", i % width,
                      "]");
}

}  // namespace

bool ReadPixels(const v1::Tensor& tensor, Fields& fields, PixelInput& pixels) {
  int64_t num_elements = 0;
  const absl::Status header = CheckPixelHeader(tensor, num_elements);
  for (const FieldViolation& v : GetErrorDetails(header).violations) {
    fields.Wrong(v.field, v.description);
  }
  if (!header.ok()) return false;
  const auto num_bytes = static_cast<size_t>(num_elements) * sizeof(float);
  pixels.shape.assign(tensor.header().shape().begin(),
                      tensor.header().shape().end());
  if (tensor.floats_size() > 0 && tensor.data().empty() &&
      tensor.floats_size() == num_elements) {
    pixels.values.assign(tensor.floats().begin(), tensor.floats().end());
  } else if (tensor.data().size() == num_bytes && tensor.floats().empty()) {
    pixels.values.resize(num_elements);
    std::memcpy(pixels.values.data(), tensor.data().data(), num_bytes);
    const auto crc = static_cast<uint32_t>(
        crc32(0, reinterpret_cast<const Bytef*>(tensor.data().data()),
              static_cast<uInt>(num_bytes)));
    if (tensor.header().crc32() != 0 && tensor.header().crc32() != crc) {
      fields.Wrong(
          "input.pixels.header.crc32",
          absl::StrCat("does not fit the data, whose CRC-32 is ", crc));
      return false;
    }
  } else {
    fields.Wrong(
        "input.pixels.data",
        absl::StrCat(tensor.data().size(), " bytes and ", tensor.floats_size(),
                     " floats do not fit the "
                     "shape, which needs ",
                     num_bytes, " bytes or ", num_elements, " floats"));
    return false;
  }
  for (int64_t i = 0; i < num_elements; ++i) {
    if (!std::isfinite(pixels.values[i])) {
      fields.Wrong("input.pixels",
                   absl::StrCat("the value at ", PixelName(tensor.header(), i),
                                " is NaN or infinite; pixels must be finite"));
      return false;
    }
  }
  return true;
}

Input ReadInput(const v1::ExplainRequest& message, Fields& fields) {
  const v1::Input& input = message.input();
  switch (input.kind_case()) {
    case v1::Input::kText:
      if (!input.text().empty()) return TextInput{input.text()};
      fields.Wrong("input.text", "empty; give at least one byte");
      return InputStandIn(fields);
    case v1::Input::kTokens:
      return ReadTokens(input.tokens(), fields);
    case v1::Input::kImage:
      if (!input.image().empty()) return ImageInput{input.image()};
      fields.Wrong("input.image", "empty; give a PNG or JPEG file");
      return InputStandIn(fields);
    case v1::Input::kPixels: {
      PixelInput pixels;
      if (ReadPixels(input.pixels(), fields, pixels)) return pixels;
      return InputStandIn(fields);
    }
    case v1::Input::KIND_NOT_SET:
      break;
  }
  fields.Wrong("input", "required: one of text, tokens, image, pixels");
  return InputStandIn(fields);
}

namespace {

void ReadPosition(const std::string& path, const v1::Point& message,
                  Fields& fields, Position& out) {
  using Kind = Position::Kind;
  switch (message.position().kind_case()) {
    case v1::Position::kIndex:
      if (fields.AtLeast(path + ".index", message.position().index(), 0)) {
        out = {Kind::kIndex, message.position().index()};
      }
      break;
    case v1::Position::kLast:
      out.kind = Kind::kLast;
      break;
    case v1::Position::kClassToken:
      out.kind = Kind::kClassToken;
      break;
    case v1::Position::KIND_NOT_SET:
      if (message.has_position()) {
        fields.Wrong(path, "one of index, last, class_token is required");
      }
      break;
  }
}

void ReadTarget(const std::string& path, const v1::Point& message,
                Fields& fields, Target& out) {
  const v1::Target& target = message.target();
  switch (target.kind_case()) {
    case v1::Target::kPredicted:
      break;
    case v1::Target::kTokenId:
      if (fields.AtLeast<int64_t>(path + ".token_id", target.token_id(), 0)) {
        out = {Target::Kind::kToken, target.token_id(), 0};
      }
      break;
    case v1::Target::kClassId:
      if (fields.AtLeast<int64_t>(path + ".class_id", target.class_id(), 0)) {
        out = {Target::Kind::kClass, target.class_id(), 0};
      }
      break;
    case v1::Target::kContrast: {
      const v1::Contrast& contrast = target.contrast();
      const bool id_ok =
          fields.AtLeast<int64_t>(path + ".contrast.id", contrast.id(), 0);
      const bool baseline_ok = fields.AtLeast<int64_t>(
          path + ".contrast.baseline_id", contrast.baseline_id(), 0);
      if (!id_ok || !baseline_ok) break;
      if (contrast.id() == contrast.baseline_id()) {
        fields.Wrong(path + ".contrast.baseline_id",
                     absl::StrCat(contrast.id(),
                                  " is the id itself; a contrast needs two"));
        break;
      }
      out = {Target::Kind::kContrast, contrast.id(), contrast.baseline_id()};
      break;
    }
    case v1::Target::kNext:
      out.kind = Target::Kind::kNext;
      break;
    case v1::Target::KIND_NOT_SET:
      if (message.has_target()) {
        fields.Wrong(path,
                     "one of predicted, token_id, class_id, contrast, next is "
                     "required");
      }
      break;
  }
}

}  // namespace

std::vector<Point> ReadPoints(
    const google::protobuf::RepeatedPtrField<v1::Point>& messages,
    Fields& fields) {
  // Beyond this the engine refuses, whatever the points say.
  constexpr int kMostRead = 1024;
  std::vector<Point> points(std::max(1, messages.size()));
  for (int i = 0; i < std::min(messages.size(), kMostRead); ++i) {
    const std::string path = absl::StrCat("points[", i, "]");
    ReadPosition(path + ".position", messages[i], fields, points[i].position);
    ReadTarget(path + ".target", messages[i], fields, points[i].target);
  }
  return points;
}

}  // namespace limpid::validate
