// SPDX-License-Identifier: Apache-2.0
#include "server/input/image_processor.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/json_guard.h"
#include "server/base/mapped_file.h"

namespace limpid {
namespace {

using Json = nlohmann::json;
using Channels = std::array<double, 3>;
using ResizeKind = ImageProcessor::Resize::Kind;

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr int kMaxDepth = 16;
constexpr int64_t kMaxValues = 100'000;
// Of a resized picture; no more is ever held than the crop.
constexpr int64_t kMaxSide = 65535;
// Of what divides and multiplies a pixel, so that it stays finite.
constexpr double kSmallest = 1e-6;
constexpr double kLargest = 1e6;
constexpr Channels kImageNetMean = {0.485, 0.456, 0.406};
constexpr Channels kImageNetDeviation = {0.229, 0.224, 0.225};

absl::Status ConfigError(const std::string& path, absl::string_view reason,
                         absl::string_view what,
                         std::vector<FieldViolation> violations = {}) {
  ErrorDetails details;
  details.reason = std::string(reason);
  details.metadata["file"] = path;
  details.violations = std::move(violations);
  return MakeError(absl::StatusCode::kDataLoss, absl::StrCat(path, ": ", what),
                   std::move(details));
}

// A size of one or two numbers in the file.
struct Size {
  int64_t height = 0;
  int64_t width = 0;
  bool shortest_edge = false;
};

// Typed access to the file's fields that collects what is wrong. A null is a
// missing field.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}

  bool Has(const char* name) const { return Find(json_, name) != nullptr; }

  bool Bool(const char* name, bool fallback) {
    const Json* value = Find(json_, name);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) Wrong(name, "must be true or false");
    return value->is_boolean() ? value->get<bool>() : fallback;
  }

  double Number(const char* name, double fallback, double min) {
    const Json* value = Find(json_, name);
    if (value == nullptr) return fallback;
    if (IsNumber(*value, min)) return value->get<double>();
    Wrong(name, absl::StrCat("must be a number from ", min, " to ", kLargest));
    return fallback;
  }

  Channels ThreeNumbers(const char* name, Channels fallback, double min) {
    const Json* value = Find(json_, name);
    if (value == nullptr) return fallback;
    Channels out = fallback;
    bool fine = value->is_array() && value->size() == out.size();
    for (size_t c = 0; fine && c < out.size(); ++c) {
      fine = IsNumber((*value)[c], min);
      if (fine) out[c] = (*value)[c].get<double>();
    }
    if (fine) return out;
    Wrong(name,
          absl::StrCat("must be three numbers from ", min, " to ", kLargest));
    return fallback;
  }

  ResizeFilter Filter(const char* name, ResizeFilter fallback) {
    const Json* value = Find(json_, name);
    if (value == nullptr) return fallback;
    if (*value == 2) return ResizeFilter::kBilinear;
    if (*value == 3) return ResizeFilter::kBicubic;
    Wrong(name, "must be 2 (bilinear) or 3 (bicubic)");
    return fallback;
  }

  // Nothing if the field is missing or wrong.
  std::optional<Size> SizeOf(const char* name, bool may_be_edge) {
    const Json* value = Find(json_, name);
    if (value == nullptr) return std::nullopt;
    if (IsSide(*value)) return Square(*value, false);
    if (value->is_object()) {
      const Json* const height = Find(*value, "height");
      const Json* const width = Find(*value, "width");
      const Json* const edge = Find(*value, "shortest_edge");
      const bool more = Find(*value, "longest_edge") != nullptr;
      if (height && width && !edge && !more && IsSide(*height) &&
          IsSide(*width)) {
        return Size{height->get<int64_t>(), width->get<int64_t>(), false};
      }
      if (may_be_edge && edge && !height && !width && !more && IsSide(*edge)) {
        return Square(*edge, true);
      }
    }
    Wrong(name, absl::StrCat("must be an integer from 1 to ", kMaxSide,
                             may_be_edge ? ", {\"shortest_edge\"}" : "",
                             " or {\"height\", \"width\"} of such"));
    return std::nullopt;
  }

  // A setting that is not known here and must be off.
  void Off(const char* name) {
    const Json* value = Find(json_, name);
    if (value != nullptr && *value != false) {
      Wrong(name, "is not supported, must be missing or false");
    }
  }

  void Wrong(absl::string_view name, absl::string_view what) {
    violations_.push_back({std::string(name), std::string(what)});
  }

  absl::Status status(const std::string& path) const {
    if (violations_.empty()) return absl::OkStatus();
    std::string message;
    for (const FieldViolation& violation : violations_) {
      absl::StrAppend(&message, message.empty() ? "" : "; ", violation.field,
                      " ", violation.description);
    }
    return ConfigError(path, "CONFIG_INVALID", message, violations_);
  }

 private:
  static const Json* Find(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }
  static bool IsNumber(const Json& value, double min) {
    return value.is_number() && value.get<double>() >= min &&
           value.get<double>() <= kLargest;
  }
  static Size Square(const Json& side, bool shortest_edge) {
    return {side.get<int64_t>(), side.get<int64_t>(), shortest_edge};
  }
  static bool IsSide(const Json& value) {
    return value.is_number_integer() && value >= 1 && value <= kMaxSide;
  }

  const Json& json_;
  std::vector<FieldViolation> violations_;
};

// An empty object if there is no file.
absl::StatusOr<Json> ReadConfig(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return Json::object();
  const auto damaged = [&path](absl::string_view what) {
    return ConfigError(path, "CONFIG_DAMAGED", what);
  };
  if (!text.ok()) return damaged(text.status().message());
  if (!IsTameJson(*text, kMaxDepth, kMaxValues)) {
    return damaged("nested too deep, too many values, or a NUL byte in it");
  }
  Json json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return damaged("not a JSON object");
  return json;
}

// As torchvision computes the longer side.
int64_t Scaled(int64_t size, int64_t longer, int64_t shorter) {
  return static_cast<int64_t>(static_cast<double>(size * longer) /
                              static_cast<double>(shorter));
}

// Height and width of a resized picture.
std::pair<int64_t, int64_t> ResizedSize(const ImageProcessor::Resize& to,
                                        int64_t height, int64_t width) {
  switch (to.kind) {
    case ResizeKind::kNone:
      return {height, width};
    case ResizeKind::kExact:
      return {to.height, to.width};
    case ResizeKind::kShortestEdge:
    case ResizeKind::kCover:
      break;
  }
  // Cross products compare the shapes; of a square target, the sides.
  if (width * to.height >= height * to.width) {
    return {to.height, Scaled(to.height, width, height)};
  }
  return {Scaled(to.width, height, width), to.width};
}

}  // namespace

absl::StatusOr<ImageProcessor> ImageProcessor::Open(const std::string& folder,
                                                    int64_t height,
                                                    int64_t width) {
  const std::string path = absl::StrCat(folder, "/preprocessor_config.json");
  LIMPID_ASSIGN_OR_RETURN(const Json json, ReadConfig(path));
  Fields fields(json);
  ImageProcessor processor(height, width);

  Resize& resize = processor.resize_;
  resize = {ResizeKind::kCover, height * 256 / 224, width * 256 / 224,
            fields.Filter("resample", ResizeFilter::kBicubic)};
  const std::optional<Size> size = fields.SizeOf("size", /*may_be_edge=*/true);
  if (size) {
    resize.kind =
        size->shortest_edge ? ResizeKind::kShortestEdge : ResizeKind::kExact;
    resize.height = size->height;
    resize.width = size->width;
  }
  if (!fields.Bool("do_resize", true)) resize.kind = ResizeKind::kNone;

  processor.crop_ =
      fields.Bool("do_center_crop", resize.kind != ResizeKind::kExact);
  const std::string model = absl::StrCat("the model's ", height, " x ", width);
  const std::optional<Size> crop =
      fields.SizeOf("crop_size", /*may_be_edge=*/false);
  if (processor.crop_) {
    if (crop && (crop->height != height || crop->width != width)) {
      fields.Wrong("crop_size", absl::StrCat("is ", crop->height, " x ",
                                             crop->width, ", must be ", model));
    }
  } else if (resize.kind == ResizeKind::kExact &&
             (resize.height != height || resize.width != width)) {
    fields.Wrong("size", absl::StrCat("is ", resize.height, " x ", resize.width,
                                      " and not cropped, must be ", model));
  }

  double factor = fields.Number("rescale_factor", 1.0 / 255.0, kSmallest);
  if (!fields.Bool("do_rescale", true)) factor = 1.0;
  Channels mean = fields.ThreeNumbers("image_mean", kImageNetMean, -kLargest);
  Channels deviation =
      fields.ThreeNumbers("image_std", kImageNetDeviation, kSmallest);
  if (!fields.Bool("do_normalize", true)) {
    mean = {0, 0, 0};
    deviation = {1, 1, 1};
  }
  for (const char* const name :
       {"do_pad", "do_flip_channel_order", "crop_pct"}) {
    fields.Off(name);
  }
  LIMPID_RETURN_IF_ERROR(fields.status(path));

  // In float32, as torchvision and Hugging Face do it.
  for (size_t c = 0; c < 3; ++c) {
    for (int value = 0; value < 256; ++value) {
      const float scaled = static_cast<float>(value * factor);
      processor.table_[c][static_cast<size_t>(value)] =
          (scaled - static_cast<float>(mean[c])) /
          static_cast<float>(deviation[c]);
    }
  }
  return processor;
}

absl::StatusOr<Pixels> ImageProcessor::Process(absl::string_view bytes) const {
  LIMPID_ASSIGN_OR_RETURN(const RgbImage picture, DecodeImage(bytes));
  const auto [height, width] =
      ResizedSize(resize_, picture.height, picture.width);
  if (!crop_ && (height != height_ || width != width_)) {
    Violations violations;
    violations.Add(
        "input.image",
        absl::StrCat("is a picture of ", picture.width, " x ", picture.height,
                     " pixels that becomes ", width, " x ", height,
                     ", must become ", width_, " x ", height_,
                     " as the model's preprocessor_config.json crops nothing"));
    return violations.ToStatus("IMAGE_INVALID");
  }
  // Without a crop this is the whole of it.
  const PixelWindow window = CenterCrop(height, width, height_, width_);
  const RgbImage cropped =
      ResizeAndCrop(picture, height, width, resize_.filter, window);

  Pixels out;
  out.height = height_;
  out.width = width_;
  out.picture_height = picture.height;
  out.picture_width = picture.width;
  const double across = static_cast<double>(picture.width) / width;
  const double down = static_cast<double>(picture.height) / height;
  out.box = {window.left * across, window.top * down, window.width * across,
             window.height * down};
  const int64_t plane = height_ * width_;
  out.values.resize(static_cast<size_t>(3 * plane));
  for (int64_t i = 0; i < plane; ++i) {
    for (int64_t c = 0; c < 3; ++c) {
      const uint8_t value = cropped.pixels[static_cast<size_t>(3 * i + c)];
      out.values[static_cast<size_t>(c * plane + i)] =
          table_[static_cast<size_t>(c)][value];
    }
  }
  return out;
}

}  // namespace limpid
