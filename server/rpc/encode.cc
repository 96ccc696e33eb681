// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/encode.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/half.h"

namespace limpid {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors are copied to the wire as they are in memory");

constexpr int64_t kFloatBytes = 4;

// zlib counts in 32 bits.
uint32_t Crc32(absl::string_view bytes) {
  uLong crc = crc32(0, nullptr, 0);
  while (!bytes.empty()) {
    const size_t n = std::min<size_t>(bytes.size(), size_t{1} << 30);
    crc = crc32(crc, reinterpret_cast<const Bytef*>(bytes.data()),
                static_cast<uInt>(n));
    bytes.remove_prefix(n);
  }
  return static_cast<uint32_t>(crc);
}

std::vector<float> ReadFloats(const NamedTensor& tensor) {
  if (tensor.dtype == DType::kInt64) {
    std::vector<int64_t> integers(tensor.bytes.size() / sizeof(int64_t));
    std::memcpy(integers.data(), tensor.bytes.data(), tensor.bytes.size());
    return std::vector<float>(integers.begin(), integers.end());
  }
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

// [..., L, L] row by row up to the diagonal.
std::vector<float> LowerTriangle(const std::vector<float>& full, int64_t size) {
  std::vector<float> packed;
  packed.reserve(full.size() / 2 + full.size() / size);
  for (size_t row = 0; row * size < full.size(); ++row) {
    const auto begin = full.begin() + static_cast<int64_t>(row) * size;
    packed.insert(packed.end(), begin,
                  begin + static_cast<int64_t>(row) % size + 1);
  }
  return packed;
}

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string PackHalf(const std::vector<float>& values) {
  std::vector<uint16_t> halves(values.size());
  std::transform(values.begin(), values.end(), halves.begin(), ToHalf);
  return Bytes(halves);
}

// 256 even steps from the smallest to the largest finite value; NaN becomes the
// smallest, infinities the ends.
std::string PackByte(const std::vector<float>& values,
                     v1::Quantization& quantization) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const float value : values) {
    if (!std::isfinite(value)) continue;
    low = std::min<double>(low, value);
    high = std::max<double>(high, value);
  }
  if (low > high) low = high = 0;
  const double scale = (high - low) / 255;
  quantization.set_scale(scale);
  quantization.set_offset(low);
  std::string bytes(values.size(), '\0');
  for (size_t i = 0; i < values.size() && scale > 0; ++i) {
    const double value = std::isnan(values[i]) ? low : values[i];
    const double step = std::clamp((value - low) / scale, 0.0, 255.0);
    bytes[i] = static_cast<char>(static_cast<uint8_t>(std::lround(step)));
  }
  return bytes;
}

bool IsSquare(const std::vector<int64_t>& shape) {
  return shape.size() >= 2 && shape.back() == shape[shape.size() - 2] &&
         shape.back() > 0;
}

int64_t SaturatingProduct(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (const int64_t factor : factors) {
    if (__builtin_mul_overflow(product, factor, &product)) {
      return std::numeric_limits<int64_t>::max();
    }
  }
  return product;
}

}  // namespace

bool IsAttention(absl::string_view name) {
  return absl::StartsWith(name, "layers.") &&
         absl::EndsWith(name, ".attention");
}

absl::StatusOr<v1::Tensor> EncodeTensor(NamedTensor tensor,
                                        const EncodeOptions& options) {
  int64_t num_elements = 1;
  v1::Tensor out;
  v1::TensorHeader& header = *out.mutable_header();
  for (const int64_t size : tensor.shape) {
    num_elements *= size;
    header.add_shape(size);
  }
  if (static_cast<int64_t>(tensor.bytes.size()) !=
      num_elements * ElementBytes(tensor.dtype)) {
    return MakeError(
        absl::StatusCode::kInternal, "TENSOR_DAMAGED",
        absl::StrCat("tensor ", tensor.name, " has ", tensor.bytes.size(),
                     " bytes, which do not fit its shape"));
  }
  const bool attention = IsAttention(tensor.name);
  const bool triangular = attention && options.lower_triangular &&
                          tensor.lower_triangular && IsSquare(tensor.shape);
  const v1::DataType type = attention && !options.floats
                                ? options.attention_type
                                : v1::DATA_TYPE_FLOAT32;
  header.set_layout(triangular ? v1::TENSOR_LAYOUT_LOWER_TRIANGULAR
                               : v1::TENSOR_LAYOUT_ROW_MAJOR);
  header.set_name(std::move(tensor.name));
  const bool integers = tensor.dtype == DType::kInt64 && !options.floats;
  std::string packed;
  if (integers ||
      (!triangular && !options.floats && type == v1::DATA_TYPE_FLOAT32)) {
    header.set_data_type(integers ? v1::DATA_TYPE_INT64 : type);
    packed = std::move(tensor.bytes);  // as it is
  } else {
    std::vector<float> values = ReadFloats(tensor);
    if (triangular) values = LowerTriangle(values, tensor.shape.back());
    header.set_data_type(type);
    packed = type == v1::DATA_TYPE_FLOAT16 ? PackHalf(values)
             : type == v1::DATA_TYPE_UINT8
                 ? PackByte(values, *header.mutable_quantization())
                 : Bytes(values);
    if (options.floats) {
      out.mutable_floats()->Add(values.begin(), values.end());
    }
  }
  header.set_num_bytes(static_cast<int64_t>(packed.size()));
  header.set_crc32(Crc32(packed));
  if (!options.floats) out.set_data(std::move(packed));
  return out;
}

int64_t EncodedReplyBytes(int64_t reply_bytes, int64_t num_tokens,
                          const AttentionRequest& attention,
                          const ModelInfo& model,
                          const EncodeOptions& options) {
  if (attention.kind == AttentionKind::kNone) return reply_bytes;
  const int64_t num_layers =
      attention.layers.empty() ? model.num_layers
                               : static_cast<int64_t>(attention.layers.size());
  const bool matrix = attention.kind == AttentionKind::kMatrix;
  const int64_t attention_bytes = std::min(
      reply_bytes,
      SaturatingProduct({num_layers, NumMatrices(attention, model), num_tokens,
                         matrix ? num_tokens : 1, kFloatBytes}));
  double share = 1;
  if (!options.floats) {
    if (options.attention_type == v1::DATA_TYPE_FLOAT16) share = 0.5;
    if (options.attention_type == v1::DATA_TYPE_UINT8) share = 0.25;
  }
  if (matrix && options.lower_triangular && model.causal) {
    share *= (static_cast<double>(num_tokens) + 1) /
             (2 * static_cast<double>(std::max<int64_t>(num_tokens, 1)));
  }
  return reply_bytes - attention_bytes +
         static_cast<int64_t>(
             std::ceil(static_cast<double>(attention_bytes) * share));
}

}  // namespace limpid
