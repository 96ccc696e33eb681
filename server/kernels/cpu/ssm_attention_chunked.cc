// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/cpu/ssm_attention_chunked.h"

#include <cstdint>

#include "server/kernels/cpu/flush_denormals.h"
#include "server/kernels/cpu/simd.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cpu {
namespace {

// Leaves the rows where they are to be.
template <typename T>
struct EntryWriter {
  const SsmAttention<T>& op;
  T* channel = nullptr;

  LIMPID_INLINE void Begin(int64_t index) {
    channel = op.out + (index - op.channel_begin) *
                           (op.row_end - op.row_begin) * op.ssm.num_positions;
  }
  LIMPID_INLINE T* Rows(int64_t row) const {
    return channel + (row - op.row_begin) * op.ssm.num_positions;
  }
  LIMPID_INLINE void Done(int64_t, int) const {}
};

struct ChunkedKernel {
  template <int kBytes, typename T>
  static LIMPID_INLINE void Run(Workspace<T>* const& work) {
    EntryWriter<T> writer{work->op};
    Chunked<kBytes>::Call(*work, writer);
  }
};

}  // namespace

template <typename T>
absl::Status RunChunked(const SsmAttention<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op));
  if (op.channel_begin == op.channel_end || op.row_begin == op.row_end) {
    return absl::OkStatus();
  }
  const FlushDenormals flush;
  Workspace<T> work(op);
  DispatchSimd<T, ChunkedKernel>(&work);
  return absl::OkStatus();
}

template absl::Status RunChunked(const SsmAttention<float>&);
template absl::Status RunChunked(const SsmAttention<double>&);

}  // namespace limpid::kernels::cpu
