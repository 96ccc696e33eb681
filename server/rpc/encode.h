// SPDX-License-Identifier: Apache-2.0
//
// Tensors of a result as they go over the wire.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "limpid/v1/tensor.pb.h"
#include "server/base/status.h"
#include "server/explain/request.h"
#include "server/explain/result.h"
#include "server/models/model.h"

namespace limpid {

// How a caller wants its tensors.
struct EncodeOptions {
  bool floats = false;  // numbers instead of packed bytes
  // Of attention tensors: FLOAT32, FLOAT16 or UINT8; float32 with `floats`.
  v1::DataType attention_type = v1::DATA_TYPE_FLOAT32;
  // Of attention tensors that are lower triangular.
  bool lower_triangular = false;
};

// Largest piece of a tensor in a stream.
inline constexpr int64_t kMaxChunkBytes = 512 << 10;

// Whether a tensor is attention by its name, "layers.{l}.attention".
bool IsAttention(absl::string_view name);

// Header and packed elements, little-endian; with `floats` the header describes
// them as float32. INTERNAL if the bytes do not fit the shape.
absl::StatusOr<v1::Tensor> EncodeTensor(NamedTensor tensor,
                                        const EncodeOptions& options);

// Upper bound of the bytes of a reply's tensors once encoded, from the bound
// for float32 tensors and the attention that was asked for.
int64_t EncodedReplyBytes(int64_t reply_bytes, int64_t num_tokens,
                          const AttentionRequest& attention,
                          const ModelInfo& model, const EncodeOptions& options);

}  // namespace limpid
