// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/wkv.h"

#include "absl/status/status.h"
#include "server/base/status.h"
#include "server/kernels/checker.h"

namespace limpid::kernels {

template <typename T>
absl::Status Validate(const Wkv<T>& op) {
  Checker check("Wkv");
  check.Positive(op.num_sequences, "num_sequences");
  check.Positive(op.num_positions, "num_positions");
  check.Positive(op.num_channels, "num_channels");
  check.Range(op.channel_begin, op.channel_end, op.num_channels, "channels");
  check.NotNull(op.key, "key");
  check.NotNull(op.value, "value");
  check.NotNull(op.decay, "decay");
  check.NotNull(op.bonus, "bonus");
  check.NotNull(op.out, "out");
  if (op.key_factor != nullptr) {
    check.NotNull(op.decay_factor, "decay_factor");
    check.NotNull(op.query, "query");
    check.NotNull(op.diagonal, "diagonal");
  }
  if (op.gate != nullptr) check.NotNull(op.gate_input, "gate_input");
  return check.ToStatus();
}

template absl::Status Validate(const Wkv<float>&);
template absl::Status Validate(const Wkv<double>&);

}  // namespace limpid::kernels
