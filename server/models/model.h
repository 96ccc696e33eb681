// SPDX-License-Identifier: Apache-2.0
//
// A resident model as those parts of the program see it that do not compute.
// No Torch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/models/form.h"

namespace limpid {

enum class Modality { kText, kImage };

// Facts about a loaded model. Sizes as in the guide: L tokens, E width of the
// residual stream, D channels of a mixer, N state size, V vocabulary.
struct ModelInfo {
  std::string name;          // folder name
  int64_t version = 0;       // of its version folder; 0: it has none
  std::string architecture;  // for example "mamba"
  std::string digest;        // SHA-256 of its files, hexadecimal
  std::string device;        // "cpu" or "cuda:N"
  Modality modality = Modality::kText;
  bool has_tokenizer = false;
  bool causal = true;
  // No independent implementation to compare with.
  bool experimental = false;
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t num_channels = 0;           // the most that a layer has
  std::vector<int64_t> layer_channels;  // of each layer
  std::vector<int64_t> layer_heads;     // of each layer; 0: none
  int64_t state_size = 0;
  int64_t vocabulary_size = 0;  // or number of classes
  int64_t resident_bytes = 0;
  std::vector<AttentionForm> forms;
  // Of models that look at pictures: pixels [3, H, W] of the input, rows and
  // columns of the grid of patches, and the class token's position among them.
  int64_t image_height = 0;
  int64_t image_width = 0;
  int64_t grid_rows = 0;
  int64_t grid_columns = 0;
  int64_t class_token = 0;
  // Names of the classes, or empty.
  std::vector<std::string> class_names;
};

// A model that can be asked. Immutable after load and thread-safe. Whoever
// holds a shared_ptr<const Model> holds a lease: it stays resident until the
// last one is gone.
class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;
};

}  // namespace limpid
