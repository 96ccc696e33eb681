// SPDX-License-Identifier: Apache-2.0
//
// Which algorithm serves an SsmAttention call.
#include <cstdint>

#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

// The chunked algorithm first makes all keys of a channel, which costs as much
// as three rows by recursion (measured with AVX2 and AVX-512, N = 16, K = 4).
constexpr int64_t kMaxRecursiveRows = 3;

}  // namespace

template <typename T>
absl::Status Run(const SsmAttention<T>& op) {
  if (op.row_end - op.row_begin <= kMaxRecursiveRows) return RunRecursive(op);
  return RunChunked(op);
}

template absl::Status Run(const SsmAttention<float>&);
template absl::Status Run(const SsmAttention<double>&);

}  // namespace limpid::kernels::cpu
