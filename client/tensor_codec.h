// SPDX-License-Identifier: Apache-2.0
//
// Tensors of a reply: whether they are what they claim to be, and their numbers
// unpacked. Nothing that a server claims is believed: sizes are compared with
// the bytes that came before anything is allocated.
//
// All errors are DATA_LOSS with reason TENSOR_DAMAGED and name the tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "limpid/v1/tensor.pb.h"

namespace limpid {

struct TensorLimits {
  int64_t max_bytes = int64_t{1} << 36;  // of one tensor, packed
  int max_rank = 8;
  size_t max_name_bytes = 256;
};

// The header by itself: a name of letters, digits and ._-, known type and
// layout, sizes whose product fits num_bytes.
absl::Status CheckHeader(const v1::TensorHeader& header,
                         const TensorLimits& limits = {});

// The header and the elements behind it: their number and checksum.
absl::Status CheckTensor(const v1::Tensor& tensor,
                         const TensorLimits& limits = {});

// Elements of the logical tensor; of a checked header only.
int64_t NumElements(const v1::TensorHeader& header);

// The elements as float32, row-major, zeros above the diagonal of a packed
// triangle filled in: at most 8 times the bytes that came.
absl::StatusOr<std::vector<float>> UnpackFloats(const v1::Tensor& tensor);

// The elements of a DATA_TYPE_INT64 tensor.
absl::StatusOr<std::vector<int64_t>> UnpackInts(const v1::Tensor& tensor);

// CRC-32 of zlib and PNG; `crc` is that of the bytes before.
uint32_t Crc32(absl::string_view bytes, uint32_t crc = 0);

// IEEE-754 binary16 to binary32, exactly.
float HalfToFloat(uint16_t half);

// The error of this file.
absl::Status DamagedTensor(const v1::TensorHeader& header,
                           absl::string_view what);

}  // namespace limpid
