// SPDX-License-Identifier: Apache-2.0
//
// Sinks that shrink attention while it is produced. None keeps more than what
// it returns. Not thread-safe; tensors are on the attention's device.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "server/models/architecture.h"
#include "server/reduce/channel_reduction.h"

namespace limpid {

// Makes one matrix [rows, L] of a layer's attention.
class MatrixReducer : public AttentionSink {
 public:
  // The matrix, once every slab was seen.
  virtual at::Tensor Finish() = 0;
  // How many rows may be visited at once before they take too much memory.
  virtual int64_t rows_at_once() const = 0;
};

// Folds channels.
class ChannelReducer final : public MatrixReducer {
 public:
  // `reduction` is any but kAll.
  ChannelReducer(ChannelReduction reduction, const BlockAttention& attention,
                 RowRange rows);
  absl::Status OnSlab(const AttentionSlab& slab) override;
  at::Tensor Finish() override;
  int64_t rows_at_once() const override { return rows_.size(); }
  // What a block must know that folds all rows by itself, and its result in
  // place of all slabs: [L, L].
  MatrixFold WholeOf(const MatrixForm& form) const;
  void OnWhole(const at::Tensor& matrix) { whole_ = matrix; }
  // What a block must know that folds the rows by itself.
  AttentionFold Target();

 private:
  const ChannelReduction reduction_;
  const RowRange rows_;
  const int64_t num_positions_, num_channels_;
  const at::Tensor projection_;  // [E, D]
  at::Tensor weights_;           // [D], kWnorm only
  at::Tensor matrix_;            // [rows, L], once there is something to fold
  at::Tensor whole_;
};

// Keeps the channels and rows asked for, [channels, rows, L] on the CPU; slabs
// may hold more rows.
class ChannelCollector final : public AttentionSink {
 public:
  // `channels` are distinct; empty: all.
  ChannelCollector(const std::vector<int64_t>& channels,
                   const BlockAttention& attention, RowRange rows);
  absl::Status OnSlab(const AttentionSlab& slab) override;
  at::Tensor Finish() { return kept_; }

 private:
  const RowRange rows_;
  std::vector<int64_t> place_;  // of each channel in kept_, or -1
  at::Tensor kept_;
};

// Measures how well the entries reproduce the block: |alpha value + bias -
// output| relative to the largest |output| of the same row, at its worst over
// channels and visited rows.
class ReconstructionMeter final : public AttentionSink {
 public:
  // `attention` must outlive the meter.
  ReconstructionMeter(const BlockAttention& attention, const MatrixForm& form,
                      RowRange rows)
      : attention_(attention), form_(form), rows_(rows) {}
  absl::Status OnSlab(const AttentionSlab& slab) override;
  // In place of all slabs: errors [rows], or the largest of them.
  void OnErrors(const at::Tensor& errors) { errors_ = errors; }
  // The map, made when it is first asked for.
  const BlockMap& map();
  // One number, on the block's device. NaN if an entry or a tensor of the map
  // is not finite.
  at::Tensor Finish();

 private:
  const BlockAttention& attention_;
  const MatrixForm form_;
  const RowRange rows_;
  std::optional<BlockMap> map_;
  at::Tensor product_;  // [rows, D]
  at::Tensor errors_;   // [rows], or their largest
};

// Passes slabs on to several sinks.
class SinkList final : public AttentionSink {
 public:
  // `sink` must outlive the list.
  void Add(AttentionSink* sink) { sinks_.push_back(sink); }
  absl::Status OnSlab(const AttentionSlab& slab) override;

 private:
  std::vector<AttentionSink*> sinks_;
};

// Lets the reducers and the meter (null: there is none) see `rows`: by the
// block's own fold, for all rows or a few, where there is one; else slab by
// slab.
absl::Status ReduceChannels(const BlockAttention& attention,
                            const MatrixForm& form, RowRange rows,
                            const std::vector<ChannelReducer*>& reducers,
                            ReconstructionMeter* meter,
                            const CancelToken& cancel);

}  // namespace limpid
