// SPDX-License-Identifier: Apache-2.0
//
// What an explanation consists of, as plain data, and the sink that receives
// it part by part. No Torch, no Protobuf.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/attribution/curves.h"
#include "server/attribution/options.h"
#include "server/base/status.h"
#include "server/checkpoint/safetensors.h"
#include "server/models/model.h"

namespace limpid {

// A tensor of a reply; names and shapes are those of the README's table.
struct NamedTensor {
  std::string name;
  DType dtype = DType::kFloat32;  // kFloat32 or kInt64
  std::vector<int64_t> shape;
  std::string bytes;  // little-endian, row-major
  // An attention matrix [..., L, L] whose entries above the diagonal are zero.
  bool lower_triangular = false;
};

struct ResultToken {
  int64_t id = 0;
  std::string piece;  // exact bytes
  size_t begin = 0;   // byte span in the text; 0, 0 for token ids
  size_t end = 0;
  bool special = false;
};

struct Prediction {
  int64_t id = 0;
  std::string piece;  // exact bytes, empty without a tokenizer
  float logit = 0;
  float probability = 0;
};

// What is explained; known before the network runs.
struct ResultHeader {
  std::string method;
  std::string device;  // that computes it; as ModelInfo::device
  Precision precision = Precision::kFloat32;
  PrecisionFacts arithmetic;        // what that is of the model
  std::vector<ResultToken> tokens;  // empty for pictures
  std::vector<int64_t> patch_grid;  // [rows, columns], empty for text
  int64_t num_positions = 0;        // L
  std::vector<int64_t> positions;   // of the points
  std::vector<int64_t> layers;      // with returned attention
};

struct LayerReport {
  int64_t layer = 0;
  double reconstruction_error = 0;
};

// What a request costs; upper bounds for bytes, estimates for the rest.
struct Cost {
  double flops = 0;
  int64_t peak_bytes = 0;   // beside the weights
  int64_t reply_bytes = 0;  // tensors
  double compute_seconds = 0;
};

// A unit over which attributions were summed: tokens of a text, or patches of a
// picture.
struct ResultUnit {
  size_t begin = 0;  // tokens [begin, end)
  size_t end = 0;
  std::vector<int64_t> region;  // [row, row end, column, column end]
  std::string text;             // exact bytes
};

// What is said of one point.
struct PointSummary {
  int64_t position = 0;
  ResolvedTarget target;
  // Largest logits at the position, largest first.
  std::vector<Prediction> predictions;
  // Methods that leave a part of the score to no position: that part.
  std::optional<double> constant;
  std::optional<double> completeness_error;
  std::vector<float> attribution;  // as in the tensor "attribution"
  std::vector<float> units;        // of each unit, as in "attribution.units"
  std::optional<Faithfulness> faithfulness;
};

struct ResultSummary {
  std::vector<PointSummary> points;  // in the order of the request
  std::vector<LayerReport> layers;
  std::vector<ResultUnit> units;
  int64_t num_non_finite = 0;
  int64_t num_tensors = 0;
  Cost cost;
};

// Receives an explanation: the header once, then tensors and progress in any
// order, then the summary once. Called from the thread that computes. A status
// that is not ok ends the work with that status; a sink may block to slow the
// producer down.
class ResultSink {
 public:
  virtual ~ResultSink() = default;
  virtual absl::Status OnHeader(ResultHeader header) = 0;
  virtual absl::Status OnProgress(int64_t done, int64_t total,
                                  const char* unit) = 0;
  virtual absl::Status OnTensor(NamedTensor tensor) = 0;
  virtual absl::Status OnSummary(ResultSummary summary) = 0;
  // The explanation begins anew: forgets what came so far. False if some of it
  // has left already, and nothing was done.
  virtual bool Restart() { return false; }
};

}  // namespace limpid
