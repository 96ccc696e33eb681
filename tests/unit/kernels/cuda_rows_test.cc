// SPDX-License-Identifier: Apache-2.0
//
// Scans and convolutions of batches, Wkv and folds of a few rows on a GPU
// against the CPU in double precision. Needs a GPU; skipped without.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "server/kernels/rows.h"
#include "server/kernels/wkv.h"
#include "tests/unit/kernels/device_inputs.h"
#include "tests/unit/kernels/directions_inputs.h"
#include "tests/unit/kernels/fold_testing.h"
#include "tests/unit/kernels/kernel_inputs.h"
#include "tests/unit/kernels/wkv_inputs.h"

namespace limpid::kernels {
namespace {

template <typename T>
class CudaRowsTest : public GpuTest {
 protected:
  void ExpectRows(const Inputs<T>& in, ChannelFold fold, int64_t begin,
                  int64_t end) {
    SCOPED_TRACE(absl::StrCat(in.sizes.ToString(), ", rows from ", begin,
                              " to ", end, ", fold ", static_cast<int>(fold)));
    const int64_t rows = end - begin;
    const int64_t length = in.sizes.positions, channels = in.sizes.channels;
    std::mt19937_64 g(7);
    const auto weight = Values<T>::Random(channels, 0, 1, g);
    std::vector<double> matrix(rows * length, StartOf(fold));
    std::vector<double> product(rows * channels);
    SsmRowsFold<double> exact;
    exact.attention = in.ExactAttention();
    exact.attention.row_begin = begin;
    exact.attention.row_end = end;
    exact.conv_bias = in.conv_bias.exact();
    exact.fold = fold;
    exact.weight = weight.exact();
    exact.accumulator = matrix.data();
    exact.value = in.u.exact();
    exact.value_stride = in.stride;
    exact.product = product.data();
    ASSERT_TRUE(cpu::Run(exact).ok());

    const DeviceInputs<T> device(in);
    const OnDevice<T> weights(weight.data(), channels);
    std::vector<T> first;
    for (int repetition = 0; repetition < 2; ++repetition) {
      const OnDevice<T> accumulator(
          std::vector<T>(rows * length, static_cast<T>(StartOf(fold))));
      const OnDevice<T> products(std::vector<T>(rows * channels, T{-7}));
      SsmRowsFold<T> op;
      op.attention = device.Move(in.Attention());
      op.attention.row_begin = begin;
      op.attention.row_end = end;
      op.conv_bias = device.conv_bias.data();
      op.fold = fold;
      op.weight = weights.data();
      op.accumulator = accumulator.data();
      op.value = device.u.data();
      op.value_stride = in.stride;
      op.product = products.data();
      ASSERT_TRUE(cuda::CanFoldRows(op));
      // Numbers that are none, lest anything counts on zeros.
      std::vector<T> fill(cuda::RowsFoldScratch(op) + 1,
                          std::numeric_limits<T>::quiet_NaN());
      fill.back() = T{12345};
      const OnDevice<T> scratch(fill);
      op.scratch = scratch.data();
      ASSERT_TRUE(cuda::Run(op, stream_).ok());
      Synchronize();
      EXPECT_EQ(scratch.Fetch().back(), T{12345});
      EXPECT_TRUE(Near(accumulator.Fetch(), matrix, 3 * kTolerance<T>));
      EXPECT_TRUE(Near(products.Fetch(), product, 3 * kTolerance<T>));
      if (repetition == 0) first = accumulator.Fetch();
      EXPECT_EQ(accumulator.Fetch(), first) << "not deterministic";
    }
  }
};
TYPED_TEST_SUITE(CudaRowsTest, Precisions);

TYPED_TEST(CudaRowsTest, FewRowsAtAllPlaces) {
  for (const int64_t length : {1, 2, 31, 32, 33, 130, 1023, 1024}) {
    for (const auto& [channels, states] :
         std::vector<std::pair<int, int>>{{1, 1}, {17, 5}, {37, 16}}) {
      const Inputs<TypeParam> in(Sizes{length, channels, states, 4});
      this->ExpectRows(in, ChannelFold::kSumAbs, length - 1, length);
      this->ExpectRows(in, ChannelFold::kSumAbs, length / 2,
                       std::min(length, length / 2 + kMaxFoldedRows));
    }
  }
}

TYPED_TEST(CudaRowsTest, EveryFold) {
  for (const ChannelFold fold : kFolds) {
    this->ExpectRows(Inputs<TypeParam>(Sizes{300, 21, 16, 3}), fold, 200, 202);
  }
}

TYPED_TEST(CudaRowsTest, JoinDirections) {
  using T = TypeParam;
  for (const int64_t length : {1, 9, 70}) {
    const Directions<T> in(length, 11);
    const DeviceInputs<T> ahead(in.ahead), back(in.back);
    const OnDevice<T> of_ahead(ConvertTo<T>(in.Exact(in.of_ahead)));
    const OnDevice<T> of_back(ConvertTo<T>(in.Exact(in.of_back)));
    const OnDevice<T> weight(in.weight.data(), 11);
    for (const ChannelFold fold : kFolds) {
      SCOPED_TRACE(
          absl::StrCat("L=", length, ", fold ", static_cast<int>(fold)));
      const OnDevice<T> out(std::vector<T>(2 * length * length, T{-7}));
      JoinDirections<T> op = in.Join(ahead.Move(in.ahead.Attention()),
                                     back.Move(in.back.Attention()), fold);
      op.ahead.weight = op.back.weight = weight.data();
      op.ahead.accumulator = of_ahead.data();
      op.back.accumulator = of_back.data();
      op.out = out.data();
      ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
      this->Synchronize();
      EXPECT_TRUE(Near(out.Fetch(), in.Expected(fold)));
    }
  }
}

TYPED_TEST(CudaRowsTest, RowErrors) {
  using T = TypeParam;
  constexpr int64_t kRows = 5, kChannels = 700;
  std::mt19937_64 g(1);
  const auto product = Values<T>::Random(kRows * kChannels, -1, 1, g);
  const auto bias = Values<T>::Random(kRows * kChannels, -1, 1, g);
  const auto random = Values<T>::Random(kRows * kChannels, -1, 1, g);
  std::vector<T> output(random.data(), random.data() + kRows * kChannels);
  output[2 * kChannels + 600] = std::numeric_limits<T>::quiet_NaN();
  output[3 * kChannels + 1] = std::numeric_limits<T>::infinity();
  const OnDevice<T> on_device[] = {
      OnDevice<T>(product.data(), kRows * kChannels),
      OnDevice<T>(bias.data(), kRows * kChannels), OnDevice<T>(output),
      OnDevice<T>(std::vector<T>(kRows, T{-7}))};
  for (const bool with_bias : {false, true}) {
    std::vector<T> expected(kRows);
    RowErrors<T> op{kRows,
                    kChannels,
                    product.data(),
                    kChannels,
                    with_bias ? bias.data() : nullptr,
                    kChannels,
                    output.data(),
                    kChannels,
                    expected.data()};
    ASSERT_TRUE(cpu::Run(op).ok());
    op.product = on_device[0].data();
    if (with_bias) op.bias = on_device[1].data();
    op.output = on_device[2].data();
    op.error = on_device[3].data();
    ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
    this->Synchronize();
    const std::vector<T> actual = on_device[3].Fetch();
    for (const int64_t row : {0, 1, 4}) {
      EXPECT_NEAR(actual[row] / expected[row], 1, kTolerance<T>);
    }
    EXPECT_TRUE(std::isnan(actual[2]));
    EXPECT_TRUE(std::isnan(actual[3]));
  }
}

TYPED_TEST(CudaRowsTest, ScansOfBatchesAndWhatFollows) {
  using T = TypeParam;
  constexpr int64_t kSequences = 3;
  for (const auto& [length, states] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 16}, {63, 16}, {65, 5}, {300, 16}, {40, 64}}) {
    for (const bool reversed : {false, true}) {
      const Inputs<T> in(Sizes{kSequences * length, 21, states});
      SCOPED_TRACE(in.sizes.ToString());
      const int64_t size = kSequences * length * 21;
      std::mt19937_64 g(3);
      const auto added = Values<T>::Random(size, -1, 1, g);
      std::vector<double> y(added.exact(), added.exact() + size), gate(size);
      SelectiveSsm<double> exact = in.ExactSsm();
      exact.num_positions = length;
      ASSERT_TRUE(cpu::Run(SelectiveScan<double>{
                               exact, 0, 21, in.u.exact(), in.stride, y.data(),
                               21, kSequences, reversed, y.data(),
                               in.row.exact(), in.stride, gate.data(), 0.5})
                      .ok());
      const DeviceInputs<T> device(in);
      const OnDevice<T> device_y(added.data(), size);
      const OnDevice<T> device_gate(std::vector<T>(size, T{-7}));
      SelectiveSsm<T> ssm = device.Move(in.Ssm());
      ssm.num_positions = length;
      ASSERT_TRUE(
          cuda::Run(SelectiveScan<T>{ssm, 0, 21, device.u.data(), in.stride,
                                     device_y.data(), 21, kSequences, reversed,
                                     device_y.data(), device.row.data(),
                                     in.stride, device_gate.data(), T{0.5}},
                    this->stream_)
              .ok());
      this->Synchronize();
      EXPECT_TRUE(Near(device_y.Fetch(), y));
      EXPECT_TRUE(Near(device_gate.Fetch(), gate));
    }
  }
}

// B and C in rows that can be loaded four numbers at a time, as in networks.
TYPED_TEST(CudaRowsTest, ScansOfAlignedRows) {
  using T = TypeParam;
  // Many sequences fill the device with fewer segments of each.
  for (const auto& [sequences, length] :
       std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {1, 64}, {1, 1000}, {120, 19}, {300, 5}, {300, 19}}) {
    const int64_t rows = sequences * length;
    Inputs<T> in(Sizes{rows, 19, 16});
    SCOPED_TRACE(in.sizes.ToString());
    std::mt19937_64 g(9);
    in.state_stride = 20;
    in.b = Values<T>::Random(rows * 20, -1, 1, g);
    in.c = Values<T>::Random(rows * 20, -1, 1, g);
    std::vector<double> y(rows * 19);
    SelectiveScan<double> exact{in.ExactSsm(), 0,        19, in.u.exact(),
                                in.stride,     y.data(), 19, sequences};
    exact.ssm.num_positions = length;
    ASSERT_TRUE(cpu::Run(exact).ok());
    const DeviceInputs<T> device(in);
    const OnDevice<T> actual(std::vector<T>(rows * 19, T{-7}));
    SelectiveScan<T> op{
        device.Move(in.Ssm()), 0,  19,       device.u.data(), in.stride,
        actual.data(),         19, sequences};
    op.ssm.num_positions = length;
    ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
    this->Synchronize();
    EXPECT_TRUE(Near(actual.Fetch(), y));
    this->ExpectRows(in, ChannelFold::kSumAbs, rows - 1, rows);
  }
}

TYPED_TEST(CudaRowsTest, ConvolutionsOfBatches) {
  using T = TypeParam;
  constexpr int64_t kSequences = 3, kChannels = 133;
  for (const int64_t width : {1, 3, 4, 7}) {
    for (const int64_t length : {1, 2, 8, 65}) {
      for (const bool reversed : {false, true}) {
        const Inputs<T> in(Sizes{kSequences * length, kChannels, 1, width});
        SCOPED_TRACE(in.sizes.ToString());
        const int64_t size = kSequences * length * kChannels;
        std::vector<double> expected[3];
        for (auto& numbers : expected) numbers.resize(size);
        ASSERT_TRUE(
            cpu::Run(CausalConv1d<double>{
                         length, kChannels, width, in.conv_weight.exact(),
                         in.conv_bias.exact(), in.u.exact(), in.stride,
                         expected[0].data(), kChannels, kSequences, reversed,
                         expected[1].data(), expected[2].data()})
                .ok());
        const DeviceInputs<T> device(in);
        const std::vector<T> fill(size, T{-7});
        const OnDevice<T> actual[] = {OnDevice<T>(fill), OnDevice<T>(fill),
                                      OnDevice<T>(fill)};
        CausalConv1d<T> op{length,
                           kChannels,
                           width,
                           device.conv_weight.data(),
                           device.conv_bias.data(),
                           device.u.data(),
                           in.stride,
                           actual[0].data(),
                           kChannels,
                           kSequences,
                           reversed,
                           actual[1].data(),
                           actual[2].data()};
        ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
        this->Synchronize();
        for (int i = 0; i < 3; ++i) {
          EXPECT_TRUE(Near(actual[i].Fetch(), expected[i])) << "output " << i;
        }
      }
    }
  }
}

template <typename T>
struct WkvOnDevice {
  explicit WkvOnDevice(const WkvInputs<T>& in)
      : key(in.key.data(), in.sizes.size()),
        value(in.value.data(), in.sizes.size()),
        gate_input(in.gate_input.data(), in.sizes.size()),
        decay(in.decay.data(), in.sizes.channels),
        bonus(in.bonus.data(), in.sizes.channels) {}
  // An operation with pointers of the host.
  Wkv<T> Move(Wkv<T> op) const {
    op.key = key.data();
    op.value = value.data();
    op.gate_input = gate_input.data();
    op.decay = decay.data();
    op.bonus = bonus.data();
    return op;
  }

  OnDevice<T> key, value, gate_input, decay, bonus;
};

TYPED_TEST(CudaRowsTest, Wkv) {
  using T = TypeParam;
  const std::vector<WkvInputs<T>> cases = {
      WkvInputs<T>({1, 1, 1}),
      WkvInputs<T>({2, 63, 9}),
      WkvInputs<T>({2, 65, 33}),
      WkvInputs<T>({1, 1024, 5}),
      WkvInputs<T>({1, 300, 9}, 300, 100),
      WkvInputs<T>({1, 2048, 2}, 30, 1e-3)};
  for (const WkvInputs<T>& in : cases) {
    SCOPED_TRACE(absl::StrCat("L=", in.sizes.positions));
    WkvOutputs<double> expected(in.sizes);
    Wkv<double> exact = in.Exact();
    expected.Point(exact);
    ASSERT_TRUE(cpu::Run(exact).ok());
    const WkvOnDevice<T> device(in);
    const std::vector<T> fill(in.sizes.size(), T{-7});
    const OnDevice<T> actual[] = {OnDevice<T>(fill), OnDevice<T>(fill),
                                  OnDevice<T>(fill), OnDevice<T>(fill),
                                  OnDevice<T>(fill), OnDevice<T>(fill)};
    Wkv<T> op = device.Move(in.Op());
    op.out = actual[0].data();
    op.key_factor = actual[1].data();
    op.decay_factor = actual[2].data();
    op.query = actual[3].data();
    op.diagonal = actual[4].data();
    op.gate = actual[5].data();
    ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
    this->Synchronize();
    for (int i = 0; i < WkvOutputs<T>::kOutputs; ++i) {
      EXPECT_TRUE(Near(actual[i].Fetch(), expected.all[i],
                       std::max(kTolerance<T>, 1e-12)))
          << "output " << i;
    }
  }
}

// Sequences of different lengths, one after the other, in one launch.
TYPED_TEST(CudaRowsTest, ScansOfPackedSequences) {
  using T = TypeParam;
  constexpr int64_t kChannels = 21, kSize = kPackedPositions * kChannels;
  const OnDevice<int64_t> begins(kBegins, std::size(kBegins));
  for (const int64_t states : {5, 16, 64}) {
    for (const bool reversed : {false, true}) {
      const Inputs<T> in(Sizes{kPackedPositions, kChannels, states});
      SCOPED_TRACE(in.sizes.ToString());
      std::vector<double> y(kSize);
      ASSERT_TRUE(
          cpu::Run(SelectiveScan<double>{
                       in.ExactSsm(), 0, kChannels, in.u.exact(), in.stride,
                       y.data(), kChannels, kPackedSequences, reversed, nullptr,
                       in.row.exact(), in.stride, nullptr, 1, kBegins})
              .ok());
      const DeviceInputs<T> device(in);
      const OnDevice<T> actual(std::vector<T>(kSize, T{-7}));
      ASSERT_TRUE(
          cuda::Run(SelectiveScan<T>{device.Move(in.Ssm()), 0, kChannels,
                                     device.u.data(), in.stride, actual.data(),
                                     kChannels, kPackedSequences, reversed,
                                     nullptr, device.row.data(), in.stride,
                                     nullptr, 1, begins.data()},
                    this->stream_)
              .ok());
      this->Synchronize();
      EXPECT_TRUE(Near(actual.Fetch(), y));
    }
  }
}

TYPED_TEST(CudaRowsTest, ConvolutionsOfPackedSequences) {
  using T = TypeParam;
  constexpr int64_t kChannels = 133, kSize = kPackedPositions * kChannels;
  const OnDevice<int64_t> begins(kBegins, std::size(kBegins));
  for (const int64_t width : {1, 3, 4, 7, 16}) {
    for (const bool reversed : {false, true}) {
      const Inputs<T> in(Sizes{kPackedPositions, kChannels, 1, width});
      SCOPED_TRACE(in.sizes.ToString());
      std::vector<double> expected(kSize);
      ASSERT_TRUE(
          cpu::Run(CausalConv1d<double>{
                       kPackedPositions, kChannels, width,
                       in.conv_weight.exact(), in.conv_bias.exact(),
                       in.u.exact(), in.stride, expected.data(), kChannels,
                       kPackedSequences, reversed, nullptr, nullptr, kBegins})
              .ok());
      const DeviceInputs<T> device(in);
      const OnDevice<T> actual(std::vector<T>(kSize, T{-7}));
      ASSERT_TRUE(
          cuda::Run(CausalConv1d<T>{kPackedPositions, kChannels, width,
                                    device.conv_weight.data(),
                                    device.conv_bias.data(), device.u.data(),
                                    in.stride, actual.data(), kChannels,
                                    kPackedSequences, reversed, nullptr,
                                    nullptr, begins.data()},
                    this->stream_)
              .ok());
      this->Synchronize();
      EXPECT_TRUE(Near(actual.Fetch(), expected));
    }
  }
}

TYPED_TEST(CudaRowsTest, WkvOfPackedSequences) {
  using T = TypeParam;
  const WkvInputs<T> in({1, kPackedPositions, 33});
  std::vector<double> expected(in.sizes.size());
  Wkv<double> exact = in.Exact();
  exact.num_sequences = kPackedSequences;
  exact.begins = kBegins;
  exact.out = expected.data();
  ASSERT_TRUE(cpu::Run(exact).ok());
  const OnDevice<int64_t> begins(kBegins, std::size(kBegins));
  const WkvOnDevice<T> device(in);
  const OnDevice<T> actual(std::vector<T>(in.sizes.size(), T{-7}));
  Wkv<T> op = device.Move(in.Op());
  op.num_sequences = kPackedSequences;
  op.begins = begins.data();
  op.out = actual.data();
  ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
  this->Synchronize();
  EXPECT_TRUE(Near(actual.Fetch(), expected, std::max(kTolerance<T>, 1e-12)));
}

TYPED_TEST(CudaRowsTest, RefusesWhatValidateRefuses) {
  EXPECT_FALSE(cuda::Run(SsmRowsFold<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(cuda::Run(RowErrors<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(cuda::Run(Wkv<TypeParam>{}, this->stream_).ok());
}

}  // namespace
}  // namespace limpid::kernels
