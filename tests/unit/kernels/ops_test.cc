// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/ops.h"
#include "server/kernels/rows.h"
#include "server/kernels/wkv.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/status.h"

namespace limpid::kernels {
namespace {

using testing::HasSubstr;

// Every number they need, in one place; Validate() does not look at it.
float* Numbers() {
  static float numbers[1];
  return numbers;
}

SelectiveSsm<float> GoodSsm() {
  return {8,         4, 2,         Numbers(), 4,      Numbers(),
          Numbers(), 2, Numbers(), 2,         nullptr};
}
SelectiveScan<float> GoodScan() {
  return {GoodSsm(), 0, 4, Numbers(), 4, Numbers(), 4};
}
SelectiveScanBackward<float> GoodBackward() {
  return {GoodSsm(), 0,         4,         Numbers(), 4,         Numbers(),
          4,         Numbers(), Numbers(), Numbers(), Numbers(), Numbers()};
}
CausalConv1d<float> GoodConv() {
  return {8, 4, 4, Numbers(), nullptr, Numbers(), 4, Numbers(), 4};
}
SsmAttention<float> GoodAttention() {
  SsmAttention<float> op;
  op.ssm = GoodSsm();
  op.channel_end = 4;
  op.row_end = 8;
  op.out = Numbers();
  return op;
}
StateRecurrence<float> GoodRecurrence() {
  StateRecurrence<float> r;
  r.num_sequences = 2;
  r.num_positions = 8;
  r.num_heads = 3;
  r.key_size = 4;
  r.query.data = r.key.data = r.decay.data = Numbers();
  r.left.data = r.right.data = r.diagonal.data = Numbers();
  return r;
}
StateScan<float> GoodStateScan() {
  return {GoodRecurrence(), 5, {Numbers()}, 0, 6, Numbers()};
}
StateScanBackward<float> GoodStateBackward() {
  StateScanBackward<float> op;
  op.recurrence = GoodRecurrence();
  op.value_size = 5;
  op.value.data = Numbers();
  op.head_end = 6;
  op.dout = Numbers();
  op.dleft = op.dright = op.ddiagonal = Numbers();
  op.scratch = Numbers();
  return op;
}
StateAttention<float> GoodStateAttention() {
  return {GoodRecurrence(), 1, 0, 3, 0, 8, Numbers()};
}
ExpandHeads<float> GoodExpansion() {
  ExpandHeads<float> op;
  op.num_positions = 8;
  op.channels_per_head = 3;
  op.heads = Numbers();
  op.head_begin = 1;
  op.channel_begin = 4;
  op.channel_end = 7;
  op.row_end = 8;
  op.out = Numbers();
  return op;
}
FoldChannels<float> GoodFold() {
  return {ChannelFold::kSum, 2, 3, Numbers(), nullptr, Numbers(), 3};
}

// Expects that `op` is refused once `spoil` has been at it, naming `what`.
template <typename Op>
void ExpectRefused(Op op, const std::function<void(Op&)>& spoil,
                   const std::string& what) {
  ASSERT_TRUE(Validate(op).ok()) << Validate(op);
  spoil(op);
  const absl::Status status = Validate(op);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << what;
  EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  EXPECT_EQ(GetErrorDetails(status).reason, "KERNEL_ARGUMENT");
}

TEST(ValidateTest, SelectiveScan) {
  using Op = SelectiveScan<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(GoodScan(), spoil, what);
  };
  refused([](Op& op) { op.ssm.num_positions = 0; }, "num_positions");
  refused([](Op& op) { op.ssm.num_channels = -1; }, "num_channels");
  refused([](Op& op) { op.ssm.state_size = 0; }, "state_size");
  refused([](Op& op) { op.ssm.state_size = kMaxStateSize + 1; }, "state_size");
  refused([](Op& op) { op.ssm.delta = nullptr; }, "delta");
  refused([](Op& op) { op.ssm.a = nullptr; }, "a is null");
  refused([](Op& op) { op.ssm.b = nullptr; }, "b is null");
  refused([](Op& op) { op.ssm.c = nullptr; }, "c is null");
  refused([](Op& op) { op.ssm.delta_stride = 3; }, "delta_stride");
  refused([](Op& op) { op.ssm.b_stride = 1; }, "b_stride");
  refused([](Op& op) { op.ssm.c_stride = 1; }, "c_stride");
  refused([](Op& op) { op.channel_begin = -1; }, "channels");
  refused([](Op& op) { op.channel_end = 5; }, "channels");
  refused([](Op& op) { op.channel_begin = 3, op.channel_end = 2; }, "channels");
  refused([](Op& op) { op.u = nullptr; }, "u is null");
  refused([](Op& op) { op.u_stride = 3; }, "u_stride");
  refused([](Op& op) { op.y = nullptr; }, "y is null");
  refused([](Op& op) { op.y_stride = 3; }, "y_stride");
  refused([](Op& op) { op.num_sequences = 0; }, "num_sequences");
  refused([](Op& op) { op.gate_input = Numbers(); }, "gate_input_stride");
  refused([](Op& op) { op.gate = Numbers(); }, "gate_input is null");
}

TEST(ValidateTest, SelectiveScanBackward) {
  using Op = SelectiveScanBackward<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(GoodBackward(), spoil, what);
  };
  refused([](Op& op) { op.ssm.a = nullptr; }, "a is null");
  refused([](Op& op) { op.channel_end = 5; }, "channels");
  refused([](Op& op) { op.u = nullptr; }, "u is null");
  refused([](Op& op) { op.u_stride = 0; }, "u_stride");
  refused([](Op& op) { op.dy = nullptr; }, "dy is null");
  refused([](Op& op) { op.dy_stride = 0; }, "dy_stride");
  refused([](Op& op) { op.du = nullptr; }, "du is null");
  refused([](Op& op) { op.ddelta = nullptr; }, "ddelta is null");
  refused([](Op& op) { op.db = nullptr; }, "db is null");
  refused([](Op& op) { op.dc = nullptr; }, "dc is null");
  refused([](Op& op) { op.scratch = nullptr; }, "scratch is null");
}

TEST(ValidateTest, CausalConv1d) {
  using Op = CausalConv1d<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(GoodConv(), spoil, what);
  };
  refused([](Op& op) { op.num_positions = 0; }, "num_positions");
  refused([](Op& op) { op.num_channels = 0; }, "num_channels");
  refused([](Op& op) { op.width = 0; }, "width");
  refused([](Op& op) { op.width = kMaxConvWidth + 1; }, "width");
  refused([](Op& op) { op.weight = nullptr; }, "weight");
  refused([](Op& op) { op.x = nullptr; }, "x is null");
  refused([](Op& op) { op.out = nullptr; }, "out is null");
  refused([](Op& op) { op.x_stride = 3; }, "x_stride");
  refused([](Op& op) { op.out_stride = 3; }, "out_stride");
  refused([](Op& op) { op.num_sequences = 0; }, "num_sequences");
  CausalConv1d<float> activated = GoodConv();
  activated.out = nullptr;
  activated.activated = Numbers();
  EXPECT_TRUE(Validate(activated).ok());
}

TEST(ValidateTest, SsmAttention) {
  using Op = SsmAttention<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(GoodAttention(), spoil, what);
  };
  refused([](Op& op) { op.ssm.c = nullptr; }, "c is null");
  refused([](Op& op) { op.channel_end = 5; }, "channels");
  refused([](Op& op) { op.row_end = 9; }, "rows");
  refused([](Op& op) { op.row_begin = 9; }, "rows");
  refused([](Op& op) { op.source_scale = Numbers(); }, "source_stride");
  refused([](Op& op) { op.row_scale = Numbers(); }, "row_stride");
  refused([](Op& op) { op.conv_weight = Numbers(); }, "width");
  refused([](Op& op) { op.out = nullptr; }, "out is null");
}

TEST(ValidateTest, StateScan) {
  using Op = StateScan<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(GoodStateScan(), spoil, what);
  };
  refused([](Op& op) { op.recurrence.num_sequences = 0; }, "num_sequences");
  refused([](Op& op) { op.recurrence.num_positions = 0; }, "num_positions");
  refused([](Op& op) { op.recurrence.num_heads = 0; }, "num_heads");
  refused([](Op& op) { op.recurrence.key_size = 0; }, "key_size");
  refused([](Op& op) { op.recurrence.key_size = kMaxStateSize + 1; },
          "key_size");
  refused([](Op& op) { op.recurrence.query.data = nullptr; }, "query is null");
  refused([](Op& op) { op.recurrence.key.data = nullptr; }, "key is null");
  refused([](Op& op) { op.recurrence.decay.data = nullptr; }, "decay is null");
  refused([](Op& op) { op.recurrence.left.data = nullptr; }, "left and right");
  refused([](Op& op) { op.recurrence.right.data = nullptr; }, "left and right");
  refused([](Op& op) { op.value_size = 0; }, "value_size");
  refused([](Op& op) { op.value_size = kMaxStateSize + 1; }, "value_size");
  refused([](Op& op) { op.value.data = nullptr; }, "value is null");
  refused([](Op& op) { op.head_begin = -1; }, "heads");
  refused([](Op& op) { op.head_end = 7; }, "heads");
  refused([](Op& op) { op.head_begin = 3, op.head_end = 2; }, "heads");
  refused([](Op& op) { op.out = nullptr; }, "out is null");
  refused(
      [](Op& op) {
        static constexpr int64_t kBegins[] = {0, 8};
        op.begins = kBegins;
        op.value.sequence_stride = 1;
      },
      "sequence_stride");

  StateScan<float> plain = GoodStateScan();
  plain.recurrence.left.data = plain.recurrence.right.data = nullptr;
  plain.recurrence.diagonal.data = nullptr;
  EXPECT_TRUE(Validate(plain).ok());
}

TEST(ValidateTest, StateScanBackward) {
  using Op = StateScanBackward<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(GoodStateBackward(), spoil, what);
  };
  refused([](Op& op) { op.recurrence.key.data = nullptr; }, "key is null");
  refused([](Op& op) { op.value_size = 0; }, "value_size");
  refused([](Op& op) { op.value.data = nullptr; }, "value is null");
  refused([](Op& op) { op.head_end = 7; }, "heads");
  refused([](Op& op) { op.dout = nullptr; }, "dout is null");
  refused([](Op& op) { op.scratch = nullptr; }, "scratch is null");
  refused([](Op& op) { op.recurrence.diagonal.data = nullptr; },
          "ddiagonal without");
  refused(
      [](Op& op) {
        op.recurrence.left.data = op.recurrence.right.data = nullptr;
      },
      "dleft without");
  refused(
      [](Op& op) {
        op.recurrence.left.data = op.recurrence.right.data = nullptr;
        op.dleft = nullptr;
      },
      "dright without");
}

TEST(ValidateTest, StateAttention) {
  using Op = StateAttention<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(GoodStateAttention(), spoil, what);
  };
  refused([](Op& op) { op.recurrence.decay.data = nullptr; }, "decay is null");
  refused([](Op& op) { op.sequence = 2; }, "sequences");
  refused([](Op& op) { op.sequence = -1; }, "sequences");
  refused([](Op& op) { op.head_end = 4; }, "heads");
  refused([](Op& op) { op.row_end = 9; }, "rows");
  refused([](Op& op) { op.row_begin = 9; }, "rows");
  refused([](Op& op) { op.out = nullptr; }, "out is null");
}

TEST(ValidateTest, ExpandHeads) {
  using Op = ExpandHeads<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(GoodExpansion(), spoil, what);
  };
  refused([](Op& op) { op.num_positions = 0; }, "num_positions");
  refused([](Op& op) { op.channels_per_head = 0; }, "channels_per_head");
  refused([](Op& op) { op.channel_begin = -1; }, "channels");
  refused([](Op& op) { op.channel_end = 3; }, "channels");
  refused([](Op& op) { op.row_end = 9; }, "rows");
  refused([](Op& op) { op.head_begin = -1; }, "head_begin");
  // Channel 4 is of head 1.
  refused([](Op& op) { op.head_begin = 2; }, "head_begin");
  refused([](Op& op) { op.heads = nullptr; }, "heads is null");
  refused([](Op& op) { op.source_scale = Numbers(); }, "source_stride");
  refused([](Op& op) { op.row_scale = Numbers(), op.row_stride = 6; },
          "row_stride");
  refused([](Op& op) { op.conv_weight = Numbers(); }, "width");
  refused([](Op& op) { op.out = nullptr; }, "out is null");
}

TEST(ValidateTest, FoldChannels) {
  using Op = FoldChannels<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(GoodFold(), spoil, what);
  };
  refused([](Op& op) { op.num_channels = -1; }, "channels");
  refused([](Op& op) { op.num_entries = -1; }, "entries");
  refused([](Op& op) { op.slab = nullptr; }, "slab");
  refused([](Op& op) { op.accumulator = nullptr; }, "accumulator");
  refused([](Op& op) { op.fold = ChannelFold::kWeightedSumAbs; }, "weight");
  refused([](Op& op) { op.slab_stride = 2; }, "slab_stride");
}

TEST(ValidateTest, SsmRowsFold) {
  using Op = SsmRowsFold<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    Op op;
    op.attention = GoodAttention();
    op.accumulator = Numbers();
    op.value = Numbers();
    op.value_stride = 4;
    op.product = Numbers();
    ExpectRefused<Op>(op, spoil, what);
  };
  refused([](Op& op) { op.attention.ssm.a = nullptr; }, "a is null");
  refused([](Op& op) { op.attention.row_end = 9; }, "rows");
  refused(
      [](Op& op) { op.attention.ssm.num_positions = op.attention.row_end = 9; },
      "rows is 9, at most 8");
  refused([](Op& op) { op.accumulator = nullptr; }, "is null");
  refused([](Op& op) { op.value = nullptr; }, "value is null");
  refused([](Op& op) { op.value_stride = 3; }, "value_stride");
  refused([](Op& op) { op.fold = ChannelFold::kWeightedSumAbs; }, "weight");
}

TEST(ValidateTest, RowErrors) {
  using Op = RowErrors<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    ExpectRefused<Op>(
        Op{2, 4, Numbers(), 4, Numbers(), 4, Numbers(), 4, Numbers()}, spoil,
        what);
  };
  refused([](Op& op) { op.num_rows = -1; }, "rows");
  refused([](Op& op) { op.num_channels = 0; }, "num_channels");
  refused([](Op& op) { op.product = nullptr; }, "product is null");
  refused([](Op& op) { op.output = nullptr; }, "output is null");
  refused([](Op& op) { op.error = nullptr; }, "error is null");
  refused([](Op& op) { op.product_stride = 3; }, "product_stride");
  refused([](Op& op) { op.bias_stride = 3; }, "bias_stride");
  refused([](Op& op) { op.output_stride = 3; }, "output_stride");
}

TEST(ValidateTest, Wkv) {
  using Op = Wkv<float>;
  const auto refused = [](const std::function<void(Op&)>& spoil,
                          const std::string& what) {
    Op op;
    op.num_positions = 8;
    op.num_channels = op.channel_end = 4;
    op.key = op.value = op.decay = op.bonus = Numbers();
    op.out = Numbers();
    ExpectRefused<Op>(op, spoil, what);
  };
  refused([](Op& op) { op.num_sequences = 0; }, "num_sequences");
  refused([](Op& op) { op.num_positions = 0; }, "num_positions");
  refused([](Op& op) { op.channel_end = 5; }, "channels");
  refused([](Op& op) { op.key = nullptr; }, "key is null");
  refused([](Op& op) { op.value = nullptr; }, "value is null");
  refused([](Op& op) { op.decay = nullptr; }, "decay is null");
  refused([](Op& op) { op.bonus = nullptr; }, "bonus is null");
  refused([](Op& op) { op.out = nullptr; }, "out is null");
  refused([](Op& op) { op.key_factor = Numbers(); }, "decay_factor is null");
  refused([](Op& op) { op.gate = Numbers(); }, "gate_input is null");
}

TEST(ValidateTest, KernelsRefuseWhatItRefuses) {
  SelectiveScan<float> scan = GoodScan();
  scan.y = nullptr;
  EXPECT_FALSE(cpu::Run(scan).ok());
  SelectiveScanBackward<float> backward = GoodBackward();
  backward.scratch = nullptr;
  EXPECT_FALSE(cpu::Run(backward).ok());
  CausalConv1d<float> conv = GoodConv();
  conv.out = nullptr;
  EXPECT_FALSE(cpu::Run(conv).ok());
  SsmAttention<float> attention = GoodAttention();
  attention.out = nullptr;
  EXPECT_FALSE(cpu::Run(attention).ok());
  EXPECT_FALSE(cpu::RunRecursive(attention).ok());
  EXPECT_FALSE(cpu::RunChunked(attention).ok());
  StateScan<float> state_scan = GoodStateScan();
  state_scan.out = nullptr;
  EXPECT_FALSE(cpu::Run(state_scan).ok());
  StateScanBackward<float> state_backward = GoodStateBackward();
  state_backward.scratch = nullptr;
  EXPECT_FALSE(cpu::Run(state_backward).ok());
  StateAttention<float> state_attention = GoodStateAttention();
  state_attention.out = nullptr;
  EXPECT_FALSE(cpu::Run(state_attention).ok());
  ExpandHeads<float> expansion = GoodExpansion();
  expansion.out = nullptr;
  EXPECT_FALSE(cpu::Run(expansion).ok());
  FoldChannels<float> fold = GoodFold();
  fold.slab = nullptr;
  EXPECT_FALSE(cpu::Run(fold).ok());
  EXPECT_FALSE(cpu::Run(SsmAttentionFold<float>()).ok());
  EXPECT_FALSE(cpu::Run(SsmRowsFold<float>()).ok());
  EXPECT_FALSE(cpu::Run(RowErrors<float>()).ok());
  EXPECT_FALSE(cpu::Run(Wkv<float>()).ok());
}

}  // namespace
}  // namespace limpid::kernels
