// SPDX-License-Identifier: Apache-2.0
#include "server/models/packing.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace limpid {

Packing::Packing(const std::vector<int64_t>& lengths) {
  if (std::equal(lengths.begin() + 1, lengths.end(), lengths.begin())) return;
  places_.push_back(0);
  for (const int64_t length : lengths) {
    places_.push_back(places_.back() + length);
  }
  begins_ = at::tensor(places_, at::kLong);
}

void Packing::MoveTo(at::Device device) {
  if (packed()) begins_ = begins_.to(device);
}

int64_t Packing::CountOf(const at::Tensor& tensor) const {
  return packed() ? std::ssize(places_) - 1 : tensor.size(0);
}

int64_t Packing::BeginOf(const at::Tensor& tensor, int64_t index) const {
  return packed() ? places_[index] : index * tensor.size(1);
}

int64_t Packing::LengthOf(const at::Tensor& tensor, int64_t index) const {
  return packed() ? places_[index + 1] - places_[index] : tensor.size(1);
}

at::Tensor Packing::Sequences(const at::Tensor& tensor, int64_t first,
                              int64_t count) const {
  if (!tensor.defined()) return tensor;
  if (!packed()) return tensor.narrow(0, first, count);
  const int64_t length = LengthOf(tensor, first);
  return tensor.select(0, 0)
      .narrow(0, places_[first], count * length)
      .unflatten(0, {count, length});
}

at::Tensor Packing::FirstPositions(const at::Tensor& tensor) const {
  if (!packed()) return at::zeros({1}, tensor.options().dtype(at::kLong));
  return begins_.narrow(0, 0, CountOf(tensor));
}

std::vector<at::Tensor> Packing::Split(const at::Tensor& tensor) const {
  if (!packed()) return {tensor};
  std::vector<at::Tensor> parts;
  for (int64_t i = 0; i < CountOf(tensor); ++i) {
    parts.push_back(Sequences(tensor, i));
  }
  return parts;
}

at::Tensor Packing::Join(const std::vector<at::Tensor>& parts) {
  return parts.size() == 1 ? parts.front() : at::cat(parts, 1);
}

}  // namespace limpid
