// SPDX-License-Identifier: Apache-2.0
//
// A model folder as it is published: config.json and model.safetensors, in one
// file or in shards.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "server/checkpoint/safetensors.h"

namespace limpid {

// The files of a model folder, mapped. Immutable and thread-safe; tensor views
// live as long as this object.
class Checkpoint {
 public:
  // Reads model.safetensors, or the shards named by
  // model.safetensors.index.json (each must be a plain file name in the
  // folder; every tensor must be in the shard that the index names, none
  // twice). DATA_LOSS names file and tensor; a folder without either is
  // NOT_FOUND, reason CHECKPOINT_MISSING, or, where only a pickle is there,
  // FAILED_PRECONDITION, reason CHECKPOINT_IS_PICKLE, with the advice to
  // convert it.
  static absl::StatusOr<Checkpoint> Open(const std::string& folder);

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  // Text of config.json.
  const std::string& config() const { return config_; }
  const std::string& folder() const { return folder_; }
  // The shard that holds a tensor, for messages.
  const std::string& FileOf(const std::string& tensor) const;

  // SHA-256 as 64 hexadecimal digits over config.json, every weight file in
  // the order of their names, and the tokenizer files that are there (name,
  // size and bytes of each). Reads all bytes.
  absl::StatusOr<std::string> Digest() const;

 private:
  Checkpoint() = default;
  std::string folder_;
  std::string config_;
  std::map<std::string, SafetensorsFile> files_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> file_of_;
};

}  // namespace limpid
