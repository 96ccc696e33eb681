// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/ops.h"

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
FoldChannels<float> GoodFold() {
  return {ChannelFold::kSum, 2, 3, Numbers(), nullptr, Numbers()};
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
  FoldChannels<float> fold = GoodFold();
  fold.slab = nullptr;
  EXPECT_FALSE(cpu::Run(fold).ok());
}

}  // namespace
}  // namespace limpid::kernels
