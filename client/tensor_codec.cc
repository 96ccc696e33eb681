// SPDX-License-Identifier: Apache-2.0
#include "client/tensor_codec.h"

#include <zlib.h>

#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/error_report.h"

namespace limpid {
namespace {

static_assert(std::endian::native == std::endian::little,
              "elements are copied as they came, which is little-endian");

bool IsName(const std::string& name, size_t limit) {
  if (name.empty() || name.size() > limit || name == "__metadata__") {
    return false;
  }
  for (const char c : name) {
    if (!absl::ascii_isalnum(c) && c != '.' && c != '_' && c != '-') {
      return false;
    }
  }
  return true;
}

int64_t ElementBytes(v1::DataType type) {
  switch (type) {
    case v1::DATA_TYPE_FLOAT32:
      return 4;
    case v1::DATA_TYPE_FLOAT16:
      return 2;
    case v1::DATA_TYPE_UINT8:
      return 1;
    case v1::DATA_TYPE_INT64:
      return 8;
    case v1::DATA_TYPE_FLOAT64:
      return 8;
    default:
      return 0;
  }
}

bool IsTriangle(const v1::TensorHeader& header) {
  return header.layout() == v1::TENSOR_LAYOUT_LOWER_TRIANGULAR;
}

// `total` times `factor`, or false if it does not fit.
bool Multiply(int64_t& total, int64_t factor) {
  return !__builtin_mul_overflow(total, factor, &total);
}

// Elements that are on the wire, or -1 if the sizes are impossible.
int64_t PackedElements(const v1::TensorHeader& header) {
  int64_t total = 1;
  const int rank = header.shape_size();
  const int outer = IsTriangle(header) ? rank - 2 : rank;
  for (int i = 0; i < outer; ++i) {
    if (header.shape(i) < 0 || !Multiply(total, header.shape(i))) return -1;
  }
  if (!IsTriangle(header)) return total;
  if (outer < 0) return -1;
  const int64_t length = header.shape(rank - 1);
  if (length < 0 || length != header.shape(rank - 2) ||
      length > std::numeric_limits<int32_t>::max() ||
      !Multiply(total, length * (length + 1) / 2)) {
    return -1;
  }
  return total;
}

template <class T>
T Load(const std::string& bytes, int64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

// Element `index` in packed order.
float PackedFloat(const v1::Tensor& tensor, int64_t index) {
  const v1::TensorHeader& header = tensor.header();
  switch (header.data_type()) {
    case v1::DATA_TYPE_FLOAT32:
      return Load<float>(tensor.data(), index);
    case v1::DATA_TYPE_FLOAT16:
      return HalfToFloat(Load<uint16_t>(tensor.data(), index));
    case v1::DATA_TYPE_UINT8:
      return static_cast<float>(header.quantization().offset() +
                                header.quantization().scale() *
                                    Load<uint8_t>(tensor.data(), index));
    case v1::DATA_TYPE_INT64:
      return static_cast<float>(Load<int64_t>(tensor.data(), index));
    default:
      return static_cast<float>(Load<double>(tensor.data(), index));
  }
}

}  // namespace

absl::Status DamagedTensor(const v1::TensorHeader& header,
                           absl::string_view what) {
  return ClientError(
      absl::StatusCode::kDataLoss, "TENSOR_DAMAGED",
      absl::StrCat("tensor ", header.name().substr(0, 64), ": ", what));
}

absl::Status CheckHeader(const v1::TensorHeader& header,
                         const TensorLimits& limits) {
  if (!IsName(header.name(), limits.max_name_bytes)) {
    return DamagedTensor(header, "not a name for a tensor");
  }
  const int64_t element_bytes = ElementBytes(header.data_type());
  if (element_bytes == 0) {
    return DamagedTensor(header,
                         absl::StrCat("unknown data type ",
                                      static_cast<int>(header.data_type())));
  }
  if (header.layout() != v1::TENSOR_LAYOUT_ROW_MAJOR && !IsTriangle(header)) {
    return DamagedTensor(
        header,
        absl::StrCat("unknown layout ", static_cast<int>(header.layout())));
  }
  if (header.shape_size() > limits.max_rank) {
    return DamagedTensor(header,
                         absl::StrCat(header.shape_size(), " dimensions"));
  }
  int64_t bytes = PackedElements(header);
  if (bytes < 0 || !Multiply(bytes, element_bytes)) {
    return DamagedTensor(header, "impossible sizes");
  }
  if (bytes != header.num_bytes()) {
    return DamagedTensor(
        header, absl::StrCat("its sizes take ", bytes,
                             " bytes, but it announces ", header.num_bytes()));
  }
  if (bytes > limits.max_bytes) {
    return DamagedTensor(
        header, absl::StrCat(bytes, " bytes are more than ", limits.max_bytes));
  }
  return absl::OkStatus();
}

absl::Status CheckTensor(const v1::Tensor& tensor, const TensorLimits& limits) {
  const v1::TensorHeader& header = tensor.header();
  absl::string_view bytes = tensor.data();
  if (tensor.floats_size() > 0) {
    if (!tensor.data().empty()) {
      return DamagedTensor(header, "both bytes and numbers");
    }
    bytes = absl::string_view(
        reinterpret_cast<const char*>(tensor.floats().data()),
        static_cast<size_t>(tensor.floats_size()) * sizeof(float));
    // The header describes the numbers packed as float32.
    v1::TensorHeader packed = header;
    packed.set_data_type(v1::DATA_TYPE_FLOAT32);
    if (absl::Status s = CheckHeader(packed, limits); !s.ok()) return s;
  } else if (absl::Status s = CheckHeader(header, limits); !s.ok()) {
    return s;
  }
  if (static_cast<uint64_t>(header.num_bytes()) != bytes.size()) {
    return DamagedTensor(
        header, absl::StrCat("announced ", header.num_bytes(), " bytes, ",
                             bytes.size(), " came"));
  }
  if (Crc32(bytes) != header.crc32()) {
    return DamagedTensor(header, "wrong checksum");
  }
  return absl::OkStatus();
}

int64_t NumElements(const v1::TensorHeader& header) {
  int64_t total = 1;
  for (const int64_t size : header.shape()) total *= size;
  return total;
}

absl::StatusOr<std::vector<float>> UnpackFloats(const v1::Tensor& tensor) {
  if (absl::Status s = CheckTensor(tensor); !s.ok()) return s;
  const v1::TensorHeader& header = tensor.header();
  const auto at = [&tensor](int64_t index) {
    return tensor.floats_size() > 0 ? tensor.floats(static_cast<int>(index))
                                    : PackedFloat(tensor, index);
  };
  const int64_t packed = PackedElements(header);
  if (!IsTriangle(header) || packed == 0) {
    std::vector<float> out(static_cast<size_t>(packed));
    for (int64_t i = 0; i < packed; ++i) out[i] = at(i);
    return out;
  }
  // Not zero: a size of 0 would have made `packed` 0 too.
  const int64_t length = header.shape(header.shape_size() - 1);
  std::vector<float> out(static_cast<size_t>(NumElements(header)), 0.0f);
  int64_t next = 0;
  for (size_t row = 0; row * length < out.size(); ++row) {
    const int64_t diagonal = static_cast<int64_t>(row) % length;
    for (int64_t j = 0; j <= diagonal; ++j) out[row * length + j] = at(next++);
  }
  return out;
}

absl::StatusOr<std::vector<int64_t>> UnpackInts(const v1::Tensor& tensor) {
  if (absl::Status s = CheckTensor(tensor); !s.ok()) return s;
  if (tensor.header().data_type() != v1::DATA_TYPE_INT64 ||
      IsTriangle(tensor.header()) || tensor.floats_size() > 0) {
    return DamagedTensor(tensor.header(), "does not hold integers");
  }
  std::vector<int64_t> out(tensor.data().size() / sizeof(int64_t));
  if (!out.empty()) {
    std::memcpy(out.data(), tensor.data().data(), tensor.data().size());
  }
  return out;
}

uint32_t Crc32(absl::string_view bytes, uint32_t crc) {
  return static_cast<uint32_t>(
      crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1F;
  uint32_t fraction = half & 0x3FF;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 0xFFu : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (fraction << 13));
}

}  // namespace limpid
