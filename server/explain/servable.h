// SPDX-License-Identifier: Apache-2.0
//
// What the engine makes of a model folder: copies of the network on devices,
// and what reads its input.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/explain/devices.h"
#include "server/input/image_processor.h"
#include "server/input/tokenizer.h"
#include "server/models/architecture.h"
#include "server/models/model.h"

namespace limpid {

// A network with its weights on a device, or on several, one layer after the
// other.
struct ModelCopy {
  Placement placement;
  std::string device;  // as ModelInfo::device
  std::map<Precision, PrecisionFacts> precisions;
  std::shared_ptr<const Network> network;
  // Held by whoever computes with it.
  std::shared_ptr<void> in_use = nullptr;
};

// Indices of a placement's devices, the first one's first.
std::vector<int64_t> DevicesOf(const Placement& placement);

// Thread-safe. Immutable but for its copies; the first one stays.
class Servable final : public Model {
 public:
  Servable(ModelInfo info, ModelCopy first,
           std::shared_ptr<const Tokenizer> tokenizer,
           std::optional<ImageProcessor> images);

  const ModelInfo& info() const override { return info_; }
  const DeviceSet& devices() const override { return devices_; }
  std::map<int64_t, int64_t> device_bytes() const override;

  const ModelCopy& FirstCopy() const { return first_; }
  // One that has a part on `device`; the first, if there is none. Its network
  // lives as long as this: it goes with the last lease, whoever computes.
  ModelCopy CopyOn(int64_t device) const;
  // Takes a copy on a device that has none.
  void AddCopy(ModelCopy copy) const;
  // Gives up the copy on `device`; false if it is the first one's, or in use.
  bool DropCopy(int64_t device) const;

  // Null for a model that is served for token ids only.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  // Null for a model that reads text.
  const ImageProcessor* images() const { return images_ ? &*images_ : nullptr; }

 private:
  const ModelInfo info_;
  const ModelCopy first_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const std::optional<ImageProcessor> images_;
  mutable DeviceSet devices_;
  mutable Mutex mutex_;
  // Beside the first one, each on one device.
  mutable std::vector<ModelCopy> others_ LIMPID_GUARDED_BY(mutex_);
};

// The most that its tensors take when they are widened to the type of
// computation.
absl::StatusOr<int64_t> WeightBytesOf(const std::string& folder);
// Of these, each layer's, from the files' headers alone.
absl::StatusOr<std::vector<int64_t>> LayerBytesOf(const std::string& folder);

// Reads a model folder onto devices and runs the network once in every
// precision.
absl::StatusOr<std::shared_ptr<const Model>> LoadServable(
    const std::string& name, const std::string& folder, int64_t version,
    const Placement& placement, const Devices& devices);

// Another copy of a model, from the folder that it was read from.
// FAILED_PRECONDITION, reason MODEL_CHANGED, if that holds other files now.
absl::Status CopyServable(const Servable& servable, const std::string& folder,
                          int64_t device, const Devices& devices);

}  // namespace limpid
