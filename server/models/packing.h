// SPDX-License-Identifier: Apache-2.0
//
// How the sequences of a batch lie in its tensors. Equally long ones are the
// first dimension, [B, L, ...]. Those that differ in length are packed: one
// after the other in [1, T, ...], T positions in all. Nothing is between them,
// so that what is done position by position need not know; what moves
// information between positions begins anew where a sequence does.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace limpid {

class Packing {
 public:
  // Of tensors [B, L, ...].
  Packing() = default;
  // Of sequences of these lengths, one or more: packed if they differ.
  explicit Packing(const std::vector<int64_t>& lengths);

  bool packed() const { return begins_.defined(); }
  // [B + 1] int64: where each of the packed sequences begins, and where the
  // last one ends. On the device of the last MoveTo, at first the CPU.
  const at::Tensor& begins() const { return begins_; }
  void MoveTo(at::Device device);

  // Sequences of a tensor [B, L, ...], or [1, T, ...].
  int64_t CountOf(const at::Tensor& tensor) const;
  // Where sequence `index` of it begins, its positions counted through, and its
  // positions.
  int64_t BeginOf(const at::Tensor& tensor, int64_t index) const;
  int64_t LengthOf(const at::Tensor& tensor, int64_t index) const;
  // `count` equally long neighbours from `first` on, as [count, L, ...];
  // undefined stays undefined.
  at::Tensor Sequences(const at::Tensor& tensor, int64_t first,
                       int64_t count = 1) const;
  // Position 0 of every sequence as indices into the second dimension, on the
  // device of `tensor`.
  at::Tensor FirstPositions(const at::Tensor& tensor) const;
  // Parts [B, L, ...] whose positions begin where those of their sequences do:
  // the whole, or each of the packed sequences; and such parts joined again.
  // As many operations as there are sequences, so for what is rare or small.
  std::vector<at::Tensor> Split(const at::Tensor& tensor) const;
  static at::Tensor Join(const std::vector<at::Tensor>& parts);

 private:
  std::vector<int64_t> places_;  // begins_ on the CPU
  at::Tensor begins_;
};

}  // namespace limpid
