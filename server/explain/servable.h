// SPDX-License-Identifier: Apache-2.0
//
// What the engine makes of a model folder: the network and what reads its
// input.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "server/input/image_processor.h"
#include "server/input/tokenizer.h"
#include "server/models/architecture.h"
#include "server/models/model.h"

namespace limpid {

// Immutable and thread-safe.
class Servable final : public Model {
 public:
  Servable(ModelInfo info, std::unique_ptr<const Network> network,
           std::shared_ptr<const Tokenizer> tokenizer,
           std::optional<ImageProcessor> images)
      : info_(std::move(info)),
        network_(std::move(network)),
        tokenizer_(std::move(tokenizer)),
        images_(std::move(images)) {}

  const ModelInfo& info() const override { return info_; }
  const Network& network() const { return *network_; }
  // Null for a model that is served for token ids only.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  // Null for a model that reads text.
  const ImageProcessor* images() const { return images_ ? &*images_ : nullptr; }

 private:
  const ModelInfo info_;
  const std::unique_ptr<const Network> network_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const std::optional<ImageProcessor> images_;
};

// The most that its tensors take when they are widened to the type of
// computation.
absl::StatusOr<int64_t> WeightBytesOf(const std::string& folder,
                                      const BuildOptions& options);

// Reads a model folder onto a device and runs the network once.
absl::StatusOr<std::shared_ptr<const Model>> LoadServable(
    const std::string& name, const std::string& folder, int64_t version,
    const BuildOptions& options);

}  // namespace limpid
