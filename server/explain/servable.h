// SPDX-License-Identifier: Apache-2.0
//
// What the engine makes of a model folder: the network and its tokenizer.
#pragma once

#include <memory>
#include <utility>

#include "server/input/tokenizer.h"
#include "server/models/architecture.h"
#include "server/models/model.h"

namespace limpid {

// Immutable and thread-safe.
class Servable final : public Model {
 public:
  Servable(ModelInfo info, std::unique_ptr<const Network> network,
           std::shared_ptr<const Tokenizer> tokenizer)
      : info_(std::move(info)),
        network_(std::move(network)),
        tokenizer_(std::move(tokenizer)) {}

  const ModelInfo& info() const override { return info_; }
  const Network& network() const { return *network_; }
  // Null for a model that is served for token ids only.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }

 private:
  const ModelInfo info_;
  const std::unique_ptr<const Network> network_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
};

// Reads a model folder onto a device and runs the network once.
absl::StatusOr<std::shared_ptr<const Model>> LoadServable(
    const std::string& name, const std::string& folder,
    const BuildOptions& options);

}  // namespace limpid
