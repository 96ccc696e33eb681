// SPDX-License-Identifier: Apache-2.0
#include "server/explain/servable.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/models/loader.h"

namespace limpid {

absl::StatusOr<std::shared_ptr<const Model>> LoadServable(
    const std::string& name, const std::string& folder,
    const BuildOptions& options) {
  LIMPID_ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                          Checkpoint::Open(folder));
  LIMPID_ASSIGN_OR_RETURN(std::unique_ptr<const Network> network,
                          LoadNetwork(checkpoint, options));
  LIMPID_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer,
                          Tokenizer::Open(folder));
  ModelInfo info = network->info();
  info.name = name;
  info.has_tokenizer = tokenizer != nullptr;
  LIMPID_ASSIGN_OR_RETURN(info.digest, checkpoint.Digest());
  if (tokenizer && tokenizer->vocabulary_size() > info.vocabulary_size) {
    ErrorDetails details;
    details.reason = "TOKENIZER_MISMATCH";
    return MakeError(
        absl::StatusCode::kDataLoss,
        absl::StrCat("the tokenizer has ids up to ",
                     tokenizer->vocabulary_size() - 1,
                     ", but the model's vocabulary ends at ",
                     info.vocabulary_size - 1),
        details);
  }

  // The first run allocates and chooses code paths; it should not be a
  // caller's. It also finds weights that make no sense at all.
  const int64_t length = 8;
  NetworkInput input;
  input.token_ids = at::zeros({1, length}, at::kLong);
  LIMPID_ASSIGN_OR_RETURN(const at::Tensor logits,
                          network->Forward(network->Embed(input), {length - 1},
                                           nullptr, CancelToken()));
  if (!logits.isfinite().all().item().toBool()) {
    return MakeError(absl::StatusCode::kDataLoss, "WEIGHTS_NOT_FINITE",
                     "the model's logits for a few tokens are not finite: its "
                     "weights hold NaN, infinity or values that overflow "
                     "float32");
  }
  return std::make_shared<Servable>(std::move(info), std::move(network),
                                    std::move(tokenizer));
}

}  // namespace limpid
