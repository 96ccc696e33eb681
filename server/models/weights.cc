// SPDX-License-Identifier: Apache-2.0
#include "server/models/weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace limpid {
namespace {

std::optional<at::ScalarType> FloatingType(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return at::kDouble;
    case DType::kFloat32:
      return at::kFloat;
    case DType::kFloat16:
      return at::kHalf;
    case DType::kBFloat16:
      return at::kBFloat16;
    default:
      return std::nullopt;
  }
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// In one pass and without a copy: both ends let NaN through.
bool IsFinite(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return true;
  const auto [low, high] = at::aminmax(tensor);
  return std::isfinite(low.item().toDouble()) &&
         std::isfinite(high.item().toDouble());
}

}  // namespace

at::Device BuildOptions::DeviceOf(int64_t layer) const {
  for (const LayerStage& stage : stages) {
    if (layer < stage.num_layers) return stage.device;
    layer -= stage.num_layers;
  }
  return device;
}

at::Tensor WeightReader::Keep(at::Tensor tensor) {
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  kept_bytes_ += bytes;
  if (layer_) {
    if (std::ssize(layer_bytes_) <= *layer_) layer_bytes_.resize(*layer_ + 1);
    layer_bytes_[*layer_] += bytes;
  }
  if (tensor.dim() == 2) most_inputs_ = std::max(most_inputs_, tensor.size(1));
  return tensor;
}

at::Tensor CheckpointWeights::Take(const std::vector<std::string>& names,
                                   const std::vector<int64_t>& shape) {
  const auto& tensors = checkpoint_.tensors();
  for (const std::string& name : names) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) continue;
    const TensorView& view = found->second;
    const auto refuse = [&](const std::string& what) {
      if (errors_.empty()) {
        first_file_ = checkpoint_.FileOf(name);
        first_tensor_ = name;
      }
      errors_.push_back(
          absl::StrCat(name, " in ", checkpoint_.FileOf(name), " ", what));
      return at::Tensor();
    };
    const std::optional<at::ScalarType> stored = FloatingType(view.dtype);
    if (!stored) {
      return refuse(absl::StrCat("has dtype ",
                                 std::string(DTypeName(view.dtype)),
                                 ", expected F64, F32, F16 or BF16"));
    }
    if (view.shape != shape) {
      return refuse(absl::StrCat("has shape ", ShapeText(view.shape),
                                 ", expected ", ShapeText(shape)));
    }
    if (options().device.is_meta()) {
      return Keep(at::empty(
          shape, at::TensorOptions().dtype(options().dtype).device(at::kMeta)));
    }
    // The mapped bytes need not be aligned and go away with the checkpoint, so
    // they are copied before they are converted.
    at::Tensor raw = at::empty(shape, at::TensorOptions().dtype(*stored));
    if (!view.data.empty()) {
      std::memcpy(raw.data_ptr(), view.data.data(), view.data.size());
    }
    const at::Tensor widened = raw.to(options().dtype);
    if (non_finite_.empty() && !IsFinite(widened)) non_finite_ = name;
    return Keep(widened.to(device()));
  }
  if (errors_.empty()) first_tensor_ = names.front();
  errors_.push_back(absl::StrCat(absl::StrJoin(names, " (or "),
                                 names.size() > 1 ? ")" : "", " is missing"));
  return at::Tensor();
}

at::ScalarType CheckpointWeights::stored_type() const {
  std::map<at::ScalarType, int64_t> elements;
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    const std::optional<at::ScalarType> type = FloatingType(tensor.dtype);
    if (type) elements[*type] += tensor.num_elements();
  }
  const auto most = std::max_element(
      elements.begin(), elements.end(),
      [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == elements.end() ? options().dtype : most->first;
}

std::vector<int64_t> CheckpointWeights::ShapeOf(
    const std::vector<std::string>& names) const {
  for (const std::string& name : names) {
    const auto found = checkpoint_.tensors().find(name);
    if (found != checkpoint_.tensors().end()) return found->second.shape;
  }
  return {};
}

absl::Status CheckpointWeights::status() const {
  if (errors_.empty()) {
    if (non_finite_.empty()) return absl::OkStatus();
    ErrorDetails details;
    details.reason = "WEIGHTS_NOT_FINITE";
    details.metadata["tensor"] = non_finite_;
    details.metadata["file"] = checkpoint_.FileOf(non_finite_);
    return MakeError(
        absl::StatusCode::kDataLoss,
        absl::StrCat(non_finite_, " in ", checkpoint_.FileOf(non_finite_),
                     " holds NaN, infinity or values that are too large for "
                     "float32"),
        details);
  }
  constexpr size_t kShown = 20;
  std::vector<std::string> shown(
      errors_.begin(), errors_.begin() + std::min(errors_.size(), kShown));
  if (errors_.size() > kShown) {
    shown.push_back(absl::StrCat("and ", errors_.size() - kShown, " more"));
  }
  ErrorDetails details;
  details.reason = "CHECKPOINT_MISMATCH";
  details.metadata["tensor"] = first_tensor_;
  if (!first_file_.empty()) details.metadata["file"] = first_file_;
  return MakeError(absl::StatusCode::kDataLoss,
                   absl::StrCat("the weights do not fit config.json: ",
                                absl::StrJoin(shown, "; ")),
                   details);
}

}  // namespace limpid
