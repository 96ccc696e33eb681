// SPDX-License-Identifier: Apache-2.0
#include "server/models/loader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace limpid {

std::vector<std::string> ArchitectureIds() {
  std::vector<std::string> ids;
  for (const ArchitectureSpec& spec : ListedArchitectures()) {
    ids.push_back(spec.id);
  }
  return ids;
}

absl::StatusOr<std::unique_ptr<const Network>> LoadNetwork(
    const Checkpoint& checkpoint, const BuildOptions& options) {
  LIMPID_ASSIGN_OR_RETURN(
      HfConfig config, HfConfig::Parse(checkpoint.config(), "config.json"));
  const std::string model_type = config.String("model_type", "");
  LIMPID_RETURN_IF_ERROR(config.status());
  std::vector<std::string> known;
  for (const ArchitectureSpec& spec : ListedArchitectures()) {
    for (const std::string& type : spec.model_types) {
      if (type == model_type) {
        CheckpointWeights weights(checkpoint, options);
        return spec.build(config, weights);
      }
      known.push_back(type);
    }
  }
  ErrorDetails details;
  details.reason = "ARCHITECTURE_UNKNOWN";
  details.metadata["file"] = "config.json";
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("config.json: model_type \"", model_type,
                   "\" is not known; known: ", absl::StrJoin(known, ", ")),
      details);
}

}  // namespace limpid
