// SPDX-License-Identifier: Apache-2.0
//
// A resident model as those parts of the program see it that do not compute.
// No Torch.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "server/base/device_set.h"
#include "server/models/form.h"

namespace limpid {

enum class Modality { kText, kImage };

// How a request's projections (the products with dense weights, the head's
// among them) are computed; everything else is float32.
enum class Precision {
  kFloat32,
  // Their inputs are rounded to the type in which most weights are stored.
  kCheckpoint,
  // As fast as the device can and still be of use: TF32 on GPUs, float32 on
  // CPUs.
  kFast,
};

// What a precision is of a model on its device.
struct PrecisionFacts {
  // Type of the operands: "float32", "tf32", "bfloat16" or "float16". Sums are
  // float32.
  std::string operands = "float32";
  // Relative L2 distance of the logits to those in float32, on one input.
  double logits_error = 0;
};

// Facts about a loaded model. Sizes as in the guide: L tokens, E width of the
// residual stream, D channels of a mixer, N state size, V vocabulary.
struct ModelInfo {
  std::string name;          // folder name
  int64_t version = 0;       // of its version folder; 0: it has none
  std::string architecture;  // for example "mamba"
  std::string digest;        // SHA-256 of its files, hexadecimal
  // "cpu" or "cuda:N"; of several copies, or one that is split, all of them,
  // separated by commas.
  std::string device;
  Modality modality = Modality::kText;
  bool has_tokenizer = false;
  bool causal = true;
  // No independent implementation to compare with.
  bool experimental = false;
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t num_channels = 0;             // the most that a layer has
  std::vector<int64_t> layer_channels;  // of each layer
  std::vector<int64_t> layer_heads;     // of each layer; 0: none
  int64_t state_size = 0;
  int64_t vocabulary_size = 0;       // or number of classes
  int64_t resident_bytes = 0;        // of one copy's weights
  std::vector<int64_t> layer_bytes;  // of these, each layer's
  std::vector<AttentionForm> forms;
  // Of models that look at pictures: pixels [3, H, W] of the input, rows and
  // columns of the grid of patches, and the class token's position among them.
  int64_t image_height = 0;
  int64_t image_width = 0;
  int64_t grid_rows = 0;
  int64_t grid_columns = 0;
  int64_t class_token = 0;
  // Of every precision.
  std::map<Precision, PrecisionFacts> precisions;
  // Names of the classes, or empty.
  std::vector<std::string> class_names;
};

// Where a copy of a model is: its layers, in order, on one device after the
// other, everything else on the first. Devices by index.
struct Placement {
  struct Stage {
    int64_t device = 0;
    int64_t num_layers = std::numeric_limits<int64_t>::max();
  };
  std::vector<Stage> stages = {Stage{}};

  // All of it on one device.
  static Placement On(int64_t device) {
    return {{{device, std::numeric_limits<int64_t>::max()}}};
  }
  int64_t home() const { return stages.front().device; }
  bool is_split() const { return stages.size() > 1; }
};

// A model that can be asked. What it computes is immutable after load; copies
// of it may come and go. Thread-safe. Whoever holds a shared_ptr<const Model>
// holds a lease: it stays resident until the last one is gone.
class Model {
 public:
  virtual ~Model() = default;
  // Of its first copy.
  virtual const ModelInfo& info() const = 0;
  // Where a copy of it can run: one that is split over several devices, from
  // any of these.
  virtual const DeviceSet& devices() const;
  // Bytes of weights, by device.
  virtual std::map<int64_t, int64_t> device_bytes() const {
    return {{0, info().resident_bytes}};
  }
};

inline const DeviceSet& Model::devices() const {
  static const DeviceSet first(0);
  return first;
}

}  // namespace limpid
