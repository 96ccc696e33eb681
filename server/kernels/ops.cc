// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/ops.h"

#include <cstdint>
#include <cstdlib>

#include "absl/status/status.h"
#include "server/base/status.h"
#include "server/kernels/checker.h"

namespace limpid::kernels {

template <typename T>
absl::Status Validate(const SelectiveScan<T>& op) {
  Checker check("SelectiveScan");
  check.Ssm(op.ssm);
  check.Range(op.channel_begin, op.channel_end, op.ssm.num_channels,
              "channels");
  check.NotNull(op.u, "u");
  check.NotNull(op.y, "y");
  check.AtLeast(op.u_stride, op.ssm.num_channels, "u_stride");
  check.AtLeast(op.y_stride, op.ssm.num_channels, "y_stride");
  check.Positive(op.num_sequences, "num_sequences");
  if (op.gate_input != nullptr) {
    check.AtLeast(op.gate_input_stride, op.ssm.num_channels,
                  "gate_input_stride");
  }
  if (op.gate != nullptr) check.NotNull(op.gate_input, "gate_input");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const SelectiveScanBackward<T>& op) {
  Checker check("SelectiveScanBackward");
  check.Ssm(op.ssm);
  check.Range(op.channel_begin, op.channel_end, op.ssm.num_channels,
              "channels");
  check.NotNull(op.u, "u");
  check.NotNull(op.dy, "dy");
  check.AtLeast(op.u_stride, op.ssm.num_channels, "u_stride");
  check.AtLeast(op.dy_stride, op.ssm.num_channels, "dy_stride");
  check.NotNull(op.du, "du");
  check.NotNull(op.ddelta, "ddelta");
  check.NotNull(op.db, "db");
  check.NotNull(op.dc, "dc");
  check.NotNull(op.scratch, "scratch");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const CausalConv1d<T>& op) {
  Checker check("CausalConv1d");
  check.Positive(op.num_positions, "num_positions");
  check.Positive(op.num_channels, "num_channels");
  check.ConvWidth(op.width);
  check.NotNull(op.weight, "weight");
  check.Positive(op.num_sequences, "num_sequences");
  check.NotNull(op.x, "x");
  if (op.ratio == nullptr && op.activated == nullptr) {
    check.NotNull(op.out, "out");
  }
  check.AtLeast(op.x_stride, op.num_channels, "x_stride");
  check.AtLeast(op.out_stride, op.num_channels, "out_stride");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const SsmAttention<T>& op) {
  Checker check("SsmAttention");
  check.Ssm(op.ssm);
  check.Range(op.channel_begin, op.channel_end, op.ssm.num_channels,
              "channels");
  check.Range(op.row_begin, op.row_end, op.ssm.num_positions, "rows");
  if (op.source_scale != nullptr) {
    check.AtLeast(op.source_stride, op.ssm.num_channels, "source_stride");
  }
  if (op.row_scale != nullptr) {
    check.AtLeast(std::abs(op.row_stride), op.ssm.num_channels, "row_stride");
  }
  if (op.conv_weight != nullptr) check.ConvWidth(op.conv_width);
  check.NotNull(op.out, "out");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const StateScan<T>& op) {
  Checker check("StateScan");
  check.Recurrence(op.recurrence);
  check.Values(op.recurrence, op.value_size, op.value, op.head_begin,
               op.head_end);
  check.NotNull(op.out, "out");
  if (op.begins != nullptr) {
    const StateRecurrence<T>& r = op.recurrence;
    for (const HeadOperand<T>& operand :
         {r.query, r.key, r.decay, r.left, r.right, r.diagonal, op.value}) {
      check.AtMost(operand.sequence_stride, 0, "sequence_stride");
    }
  }
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const StateScanBackward<T>& op) {
  Checker check("StateScanBackward");
  check.Recurrence(op.recurrence);
  check.Values(op.recurrence, op.value_size, op.value, op.head_begin,
               op.head_end);
  check.NotNull(op.dout, "dout");
  check.Unwanted(op.dleft, op.recurrence.left.data, "left");
  check.Unwanted(op.dright, op.recurrence.right.data, "right");
  check.Unwanted(op.ddiagonal, op.recurrence.diagonal.data, "diagonal");
  check.NotNull(op.scratch, "scratch");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const StateAttention<T>& op) {
  Checker check("StateAttention");
  check.Recurrence(op.recurrence);
  check.Range(op.sequence, op.sequence + 1, op.recurrence.num_sequences,
              "sequences");
  check.Range(op.head_begin, op.head_end, op.recurrence.num_heads, "heads");
  check.Range(op.row_begin, op.row_end, op.recurrence.num_positions, "rows");
  check.NotNull(op.out, "out");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const ExpandHeads<T>& op) {
  Checker check("ExpandHeads");
  check.Positive(op.num_positions, "num_positions");
  check.Positive(op.channels_per_head, "channels_per_head");
  // How many channels there are it is not told.
  check.Range(op.channel_begin, op.channel_end, op.channel_end, "channels");
  check.Range(op.row_begin, op.row_end, op.num_positions, "rows");
  check.AtLeast(op.head_begin, 0, "head_begin");
  if (op.channels_per_head > 0) {
    check.AtMost(op.head_begin, op.channel_begin / op.channels_per_head,
                 "head_begin");
  }
  check.NotNull(op.heads, "heads");
  if (op.source_scale != nullptr) {
    check.AtLeast(op.source_stride, op.channel_end, "source_stride");
  }
  if (op.row_scale != nullptr) {
    check.AtLeast(op.row_stride, op.channel_end, "row_stride");
  }
  if (op.conv_weight != nullptr) check.ConvWidth(op.conv_width);
  check.NotNull(op.out, "out");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const FoldChannels<T>& op) {
  Checker check("FoldChannels");
  check.Range(0, op.num_channels, op.num_channels, "channels");
  check.Range(0, op.num_entries, op.num_entries, "entries");
  check.NotNull(op.slab, "slab");
  if (op.num_channels > 1) {
    check.AtLeast(op.slab_stride, op.num_entries, "slab_stride");
  }
  check.NotNull(op.accumulator, "accumulator");
  if (op.fold == ChannelFold::kWeightedSumAbs) {
    check.NotNull(op.weight, "weight");
  }
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const SsmAttentionFold<T>& op) {
  Checker check("SsmAttentionFold");
  SsmAttention<T> attention = op.attention;
  attention.out = op.accumulator;
  LIMPID_RETURN_IF_ERROR(Validate(attention));
  check.Positive(op.num_sequences, "num_sequences");
  check.Fold(op, attention.ssm.num_channels, std::abs(op.value_stride));
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const JoinDirections<T>& op) {
  LIMPID_RETURN_IF_ERROR(Validate(op.ahead));
  LIMPID_RETURN_IF_ERROR(Validate(op.back));
  Checker check("JoinDirections");
  const int64_t sequences = op.ahead.num_sequences;
  const SelectiveSsm<T>&ahead = op.ahead.attention.ssm,
        &back = op.back.attention.ssm;
  check.Same(op.back.num_sequences, sequences, "num_sequences");
  check.Same(back.num_positions, ahead.num_positions, "num_positions");
  check.Same(back.num_channels, ahead.num_channels, "num_channels");
  check.Range(op.row_begin, op.row_end, sequences * ahead.num_positions,
              "rows");
  check.NotNull(op.out, "out");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const ScalarAttentionFold<T>& op) {
  Checker check("ScalarAttentionFold");
  const StateRecurrence<T>& recurrence = op.recurrence;
  check.Recurrence(recurrence);
  check.AtMost(recurrence.key_size, 1, "key_size");
  check.Range(op.sequence, op.sequence + 1, recurrence.num_sequences,
              "sequences");
  if (op.source_scale != nullptr) {
    check.AtLeast(op.source_stride, recurrence.num_heads, "source_stride");
  }
  if (op.row_scale != nullptr) {
    check.AtLeast(op.row_stride, recurrence.num_heads, "row_stride");
  }
  if (op.conv_weight != nullptr) check.ConvWidth(op.conv_width);
  check.NotNull(op.accumulator, "accumulator");
  check.Fold(op, recurrence.num_heads, op.value_stride);
  check.NotNull(op.scratch, "scratch");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const HeadsFold<T>& op) {
  ExpandHeads<T> expand = op.expand;
  expand.out = op.accumulator;
  LIMPID_RETURN_IF_ERROR(Validate(expand));
  Checker check("HeadsFold");
  check.Same(expand.head_begin, 0, "head_begin");
  check.Same(expand.channel_begin, 0, "channel_begin");
  check.Fold(op, expand.channel_end, op.value_stride);
  if (op.product != nullptr) check.NotNull(op.scratch, "scratch");
  return check.ToStatus();
}

template absl::Status Validate(const SelectiveScan<float>&);
template absl::Status Validate(const SelectiveScan<double>&);
template absl::Status Validate(const SelectiveScanBackward<float>&);
template absl::Status Validate(const SelectiveScanBackward<double>&);
template absl::Status Validate(const CausalConv1d<float>&);
template absl::Status Validate(const CausalConv1d<double>&);
template absl::Status Validate(const SsmAttention<float>&);
template absl::Status Validate(const SsmAttention<double>&);
template absl::Status Validate(const StateScan<float>&);
template absl::Status Validate(const StateScan<double>&);
template absl::Status Validate(const StateScanBackward<float>&);
template absl::Status Validate(const StateScanBackward<double>&);
template absl::Status Validate(const StateAttention<float>&);
template absl::Status Validate(const StateAttention<double>&);
template absl::Status Validate(const ExpandHeads<float>&);
template absl::Status Validate(const ExpandHeads<double>&);
template absl::Status Validate(const FoldChannels<float>&);
template absl::Status Validate(const FoldChannels<double>&);
template absl::Status Validate(const SsmAttentionFold<float>&);
template absl::Status Validate(const SsmAttentionFold<double>&);
template absl::Status Validate(const JoinDirections<float>&);
template absl::Status Validate(const JoinDirections<double>&);
template absl::Status Validate(const ScalarAttentionFold<float>&);
template absl::Status Validate(const HeadsFold<float>&);

}  // namespace limpid::kernels
