// SPDX-License-Identifier: Apache-2.0
//
// Fetches the tensors of a checkpoint by name and shape.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "server/checkpoint/checkpoint.h"
#include "server/models/architecture.h"

namespace limpid {

// Takes tensors out of a checkpoint, widened to the compute dtype and copied to
// the device. Mistakes are collected, so that status() can name every wrong
// tensor at once; a tensor that can't be had is undefined. Not thread-safe.
class WeightReader {
 public:
  WeightReader(const Checkpoint& checkpoint, const BuildOptions& options);

  // The tensor under the first of `names` that is there, which must be
  // floating point and of `shape`.
  at::Tensor Take(const std::vector<std::string>& names,
                  const std::vector<int64_t>& shape);
  // The same, undefined where `wanted` is false.
  at::Tensor TakeIf(bool wanted, const std::vector<std::string>& names,
                    const std::vector<int64_t>& shape);
  bool Has(const std::string& name) const;

  // Bytes of the tensors taken, as they are held.
  int64_t resident_bytes() const { return resident_bytes_; }
  // Ok, or DATA_LOSS, reason CHECKPOINT_MISMATCH.
  absl::Status status() const;

 private:
  const Checkpoint& checkpoint_;
  const BuildOptions options_;
  int64_t resident_bytes_ = 0;
  std::vector<std::string> errors_;
  std::string first_file_, first_tensor_;
};

}  // namespace limpid
