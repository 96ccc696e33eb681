// SPDX-License-Identifier: Apache-2.0
//
// Where a network's builder gets its tensors from, by name and shape.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/checkpoint/checkpoint.h"

namespace limpid {

// Layers that follow each other on one device.
struct LayerStage {
  at::Device device = at::kCPU;
  int64_t num_layers = 0;
};

// How a network is made.
struct BuildOptions {
  // The meta device checks names, shapes and dtypes without reading a weight;
  // the network then can't run.
  at::Device device = at::kCPU;
  // Compute dtype: weights of any storage type are widened to it.
  at::ScalarType dtype = at::kFloat;
  // Where the layers go if not all of them to `device`, which keeps everything
  // else: what comes behind the last stage goes there, too.
  std::vector<LayerStage> stages = {};

  at::Device DeviceOf(int64_t layer) const;
};

// Hands out tensors of the compute dtype on the device, or on the one of the
// layer that is being read. Asking for everything
// and then for status() lets a builder name every wrong tensor at once. Not
// thread-safe.
class WeightReader {
 public:
  explicit WeightReader(const BuildOptions& options) : options_(options) {}
  virtual ~WeightReader() = default;

  // The tensor under the first of `names` that is there, which must be
  // floating point and of `shape`; undefined if it can't be had.
  virtual at::Tensor Take(const std::vector<std::string>& names,
                          const std::vector<int64_t>& shape) = 0;
  // Ok, or what was wrong with all tensors that were asked for.
  virtual absl::Status status() const = 0;

  // In which most of the weights are stored, before they are widened.
  virtual at::ScalarType stored_type() const { return options_.dtype; }
  // Whether there is a tensor of this name.
  virtual bool Has(const std::string& name) const = 0;
  // The shape of the tensor under the first of `names` that is there, for sizes
  // that no configuration tells; empty if none is.
  virtual std::vector<int64_t> ShapeOf(
      const std::vector<std::string>& names) const = 0;

  // The same, undefined where `wanted` is false.
  at::Tensor TakeIf(bool wanted, const std::vector<std::string>& names,
                    const std::vector<int64_t>& shape) {
    return wanted ? Take(names, shape) : at::Tensor();
  }
  // Counts a tensor that the network keeps beside those it took.
  at::Tensor Keep(at::Tensor tensor);
  // Bytes of all tensors that were taken or kept.
  int64_t kept_bytes() const { return kept_bytes_; }
  // Of these, those of each layer that was read.
  const std::vector<int64_t>& layer_bytes() const { return layer_bytes_; }
  // The most inputs that one of their matrices [outputs, inputs] has.
  int64_t most_inputs() const { return most_inputs_; }
  const BuildOptions& options() const { return options_; }

  // While it lives, what is asked for is that layer's.
  class Layer {
   public:
    Layer(WeightReader& reader, int64_t index) : reader_(reader) {
      reader_.layer_ = index;
    }
    ~Layer() { reader_.layer_.reset(); }
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;

   private:
    WeightReader& reader_;
  };
  // Where what is asked for now is put.
  at::Device device() const {
    return layer_ ? options_.DeviceOf(*layer_) : options_.device;
  }

 private:
  const BuildOptions options_;
  std::optional<int64_t> layer_;
  int64_t kept_bytes_ = 0;
  std::vector<int64_t> layer_bytes_;
  int64_t most_inputs_ = 0;
};

// Takes tensors out of a checkpoint, which must outlive it. Mistakes are
// DATA_LOSS: CHECKPOINT_MISMATCH, or WEIGHTS_NOT_FINITE where all else is
// right.
class CheckpointWeights final : public WeightReader {
 public:
  CheckpointWeights(const Checkpoint& checkpoint, const BuildOptions& options)
      : WeightReader(options), checkpoint_(checkpoint) {}

  at::Tensor Take(const std::vector<std::string>& names,
                  const std::vector<int64_t>& shape) override;
  at::ScalarType stored_type() const override;
  bool Has(const std::string& name) const override {
    return checkpoint_.tensors().count(name) > 0;
  }
  std::vector<int64_t> ShapeOf(
      const std::vector<std::string>& names) const override;
  absl::Status status() const override;

 private:
  const Checkpoint& checkpoint_;
  std::vector<std::string> errors_;
  std::string first_file_, first_tensor_;
  std::string non_finite_;  // the first tensor that holds NaN or infinity
};

}  // namespace limpid
