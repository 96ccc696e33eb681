// SPDX-License-Identifier: Apache-2.0
#include "server/explain/servable.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/models/loader.h"

namespace limpid {
namespace {

BuildOptions OptionsFor(const Placement& placement, const Devices& devices) {
  BuildOptions options;
  options.device = devices.at(placement.home());
  if (!placement.is_split()) return options;
  for (const Placement::Stage& stage : placement.stages) {
    options.stages.push_back({devices.at(stage.device), stage.num_layers});
  }
  return options;
}

// Logits of an input that is always the same: a few tokens from all over the
// vocabulary, or a slope of pixels.
absl::StatusOr<at::Tensor> FirstLogits(const Network& network) {
  constexpr int64_t kTokens = 16;
  // A prime that is larger than any vocabulary.
  constexpr int64_t kStep = 2654435761;
  const ModelInfo& info = network.info();
  NetworkInput input;
  std::vector<int64_t> positions;  // all of a text
  if (info.modality == Modality::kText) {
    input.token_ids = (at::arange(kTokens, at::kLong) * kStep)
                          .remainder(info.vocabulary_size)
                          .unsqueeze(0);
  } else {
    const int64_t height = info.image_height, width = info.image_width;
    input.pixels = at::linspace(-1, 1, 3 * height * width, at::kFloat)
                       .view({1, 3, height, width});
    positions = {info.class_token};
  }
  LIMPID_ASSIGN_OR_RETURN(
      const at::Tensor scores,
      network.Forward(network.Embed(input), positions, nullptr, CancelToken()));
  return network.Logits(scores).to(at::kDouble);
}

// The first runs allocate and choose code paths; they should not be a caller's.
// They also find weights that are finite and make no sense at all, and how far
// the precisions are from float32.
absl::StatusOr<std::map<Precision, PrecisionFacts>> RunOnce(
    const Network& network) {
  LIMPID_ASSIGN_OR_RETURN(const at::Tensor exact, FirstLogits(network));
  if (!exact.isfinite().all().item().toBool()) {
    return MakeError(absl::StatusCode::kDataLoss, "WEIGHTS_NOT_FINITE",
                     "the model's logits for a first input are not finite: its "
                     "weights overflow float32");
  }
  const at::Tensor size =
      exact.norm().clamp_min(std::numeric_limits<double>::min());
  std::map<Precision, PrecisionFacts> precisions = network.info().precisions;
  for (auto& [precision, facts] : precisions) {
    if (facts.operands == PrecisionFacts().operands) continue;
    LIMPID_ASSIGN_OR_RETURN(const at::Tensor logits,
                            FirstLogits(network.In(precision)));
    facts.logits_error = ((logits - exact).norm() / size).item().toDouble();
  }
  return precisions;
}

absl::StatusOr<ModelCopy> ReadCopy(const Checkpoint& checkpoint,
                                   const Placement& placement,
                                   const Devices& devices) {
  ModelCopy copy;
  copy.placement = placement;
  std::vector<std::string> names;
  for (const int64_t index : DevicesOf(placement)) {
    names.push_back(devices.names()[index]);
  }
  copy.device = absl::StrJoin(names, ",");
  LIMPID_ASSIGN_OR_RETURN(
      copy.network, LoadNetwork(checkpoint, OptionsFor(placement, devices)));
  LIMPID_ASSIGN_OR_RETURN(copy.precisions, RunOnce(*copy.network));
  // Runs read the weights on streams of their own.
  for (const int64_t index : DevicesOf(placement)) {
    devices.streams(index).WaitForCurrent();
  }
  return copy;
}

}  // namespace

std::vector<int64_t> DevicesOf(const Placement& placement) {
  std::vector<int64_t> indices;
  for (const Placement::Stage& stage : placement.stages) {
    indices.push_back(stage.device);
  }
  return indices;
}

Servable::Servable(ModelInfo info, ModelCopy first,
                   std::shared_ptr<const Tokenizer> tokenizer,
                   std::optional<ImageProcessor> images)
    : info_(std::move(info)),
      first_(std::move(first)),
      tokenizer_(std::move(tokenizer)),
      images_(std::move(images)) {
  for (const int64_t index : DevicesOf(first_.placement)) devices_.Add(index);
}

std::map<int64_t, int64_t> Servable::device_bytes() const {
  std::map<int64_t, int64_t> bytes;
  int64_t layer = 0;
  int64_t left = info_.resident_bytes;
  for (const Placement::Stage& stage : first_.placement.stages) {
    const int64_t end =
        std::min(stage.num_layers, std::ssize(info_.layer_bytes) - layer) +
        layer;
    for (; layer < end; ++layer) {
      bytes[stage.device] += info_.layer_bytes[layer];
      left -= info_.layer_bytes[layer];
    }
  }
  bytes[first_.placement.home()] += left;
  MutexLock lock(mutex_);
  for (const ModelCopy& copy : others_) {
    bytes[copy.placement.home()] += info_.resident_bytes;
  }
  return bytes;
}

ModelCopy Servable::CopyOn(int64_t device) const {
  ModelCopy copy = first_;
  {
    MutexLock lock(mutex_);
    for (const ModelCopy& other : others_) {
      if (other.placement.home() == device) copy = other;
    }
  }
  copy.network = {std::shared_ptr<void>(), copy.network.get()};
  return copy;
}

void Servable::AddCopy(ModelCopy copy) const {
  const int64_t device = copy.placement.home();
  copy.in_use = std::make_shared<bool>();
  MutexLock lock(mutex_);
  others_.push_back(std::move(copy));
  devices_.Add(device);
}

bool Servable::DropCopy(int64_t device) const {
  ModelCopy dropped;  // freed when the lock is gone
  MutexLock lock(mutex_);
  const auto copy = std::find_if(
      others_.begin(), others_.end(),
      [&](const ModelCopy& other) { return other.placement.home() == device; });
  // Uses begin under the lock only.
  if (copy == others_.end() || copy->in_use.use_count() > 1) return false;
  devices_.Remove(device);
  dropped = std::move(*copy);
  others_.erase(copy);
  return true;
}

absl::StatusOr<int64_t> WeightBytesOf(const std::string& folder) {
  LIMPID_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                          Checkpoint::Open(folder));
  const auto width =
      static_cast<int64_t>(c10::elementSize(BuildOptions().dtype));
  int64_t bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    bytes += tensor.num_elements() * width;
  }
  // Some families keep small tensors that they made of these.
  return bytes + bytes / 50;
}

absl::StatusOr<std::vector<int64_t>> LayerBytesOf(const std::string& folder) {
  LIMPID_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                          Checkpoint::Open(folder));
  BuildOptions options;
  options.device = at::kMeta;
  LIMPID_ASSIGN_OR_RETURN(const auto network, LoadNetwork(checkpoint, options));
  return network->info().layer_bytes;
}

absl::StatusOr<std::shared_ptr<const Model>> LoadServable(
    const std::string& name, const std::string& folder, int64_t version,
    const Placement& placement, const Devices& devices) {
  LIMPID_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                          Checkpoint::Open(folder));
  LIMPID_ASSIGN_OR_RETURN(ModelCopy copy,
                          ReadCopy(checkpoint, placement, devices));
  ModelInfo info = copy.network->info();
  std::shared_ptr<const Tokenizer> tokenizer;
  std::optional<ImageProcessor> images;
  if (info.modality == Modality::kText) {
    LIMPID_ASSIGN_OR_RETURN(tokenizer, Tokenizer::Open(folder));
  } else {
    LIMPID_ASSIGN_OR_RETURN(
        images,
        ImageProcessor::Open(folder, info.image_height, info.image_width));
  }
  info.name = name;
  info.version = version;
  info.device = copy.device;
  info.precisions = copy.precisions;
  info.has_tokenizer = tokenizer != nullptr;
  LIMPID_ASSIGN_OR_RETURN(info.digest, checkpoint.Digest());
  if (tokenizer && tokenizer->vocabulary_size() > info.vocabulary_size) {
    ErrorDetails details;
    details.reason = "TOKENIZER_MISMATCH";
    return MakeError(absl::StatusCode::kDataLoss,
                     absl::StrCat("the tokenizer has ids up to ",
                                  tokenizer->vocabulary_size() - 1,
                                  ", but the model's vocabulary ends at ",
                                  info.vocabulary_size - 1),
                     details);
  }
  return std::make_shared<Servable>(std::move(info), std::move(copy),
                                    std::move(tokenizer), std::move(images));
}

absl::Status CopyServable(const Servable& servable, const std::string& folder,
                          int64_t device, const Devices& devices) {
  LIMPID_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                          Checkpoint::Open(folder));
  LIMPID_ASSIGN_OR_RETURN(const std::string digest, checkpoint.Digest());
  if (digest != servable.info().digest) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "MODEL_CHANGED",
                     "the folder holds other files than those that are served");
  }
  LIMPID_ASSIGN_OR_RETURN(ModelCopy copy,
                          ReadCopy(checkpoint, Placement::On(device), devices));
  servable.AddCopy(std::move(copy));
  return absl::OkStatus();
}

}  // namespace limpid
