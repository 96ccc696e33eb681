// SPDX-License-Identifier: Apache-2.0
#include "server/explain/servable.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/models/loader.h"

namespace limpid {

absl::StatusOr<int64_t> WeightBytesOf(const std::string& folder,
                                      const BuildOptions& options) {
  LIMPID_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                          Checkpoint::Open(folder));
  const auto width = static_cast<int64_t>(c10::elementSize(options.dtype));
  int64_t bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    bytes += tensor.num_elements() * width;
  }
  // Some families keep small tensors that they made of these.
  return bytes + bytes / 50;
}

absl::StatusOr<std::shared_ptr<const Model>> LoadServable(
    const std::string& name, const std::string& folder, int64_t version,
    const BuildOptions& options) {
  LIMPID_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                          Checkpoint::Open(folder));
  LIMPID_ASSIGN_OR_RETURN(std::unique_ptr<const Network> network,
                          LoadNetwork(checkpoint, options));
  ModelInfo info = network->info();
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

  // The first run allocates and chooses code paths; it should not be a
  // caller's. It also finds weights that are finite and make no sense at all.
  NetworkInput input;
  if (info.modality == Modality::kText) {
    input.token_ids = at::zeros({1, 8}, at::kLong);
  } else {
    input.pixels = at::zeros({1, 3, info.image_height, info.image_width});
  }
  LIMPID_ASSIGN_OR_RETURN(
      const at::Tensor logits,
      network->Forward(network->Embed(input), {0}, nullptr, CancelToken()));
  if (!logits.isfinite().all().item().toBool()) {
    return MakeError(absl::StatusCode::kDataLoss, "WEIGHTS_NOT_FINITE",
                     "the model's logits for a first input are not finite: its "
                     "weights overflow float32");
  }
  return std::make_shared<Servable>(std::move(info), std::move(network),
                                    std::move(tokenizer), std::move(images));
}

}  // namespace limpid
