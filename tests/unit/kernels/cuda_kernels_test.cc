// SPDX-License-Identifier: Apache-2.0
//
// Every CUDA operation against its CPU version. Needs a GPU; skipped without.
#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/unit/kernels/device_inputs.h"
#include "tests/unit/kernels/kernel_inputs.h"
#include "tests/unit/kernels/state_inputs.h"

namespace limpid::kernels {
namespace {

// Inputs of recurrences with a matrix state, with a copy on the device.
template <typename T>
struct DeviceStateInputs {
  explicit DeviceStateInputs(const StateInputs<T>& in)
      : in(in),
        query(Copy(in.query)),
        key(Copy(in.key)),
        decay(Copy(in.decay)),
        left(Copy(in.left)),
        right(Copy(in.right)),
        diagonal(Copy(in.diagonal)),
        value(Copy(in.value)),
        dout(in.dout.data(), in.sizes.Rows() * in.sizes.value) {}

  static OnDevice<T> Copy(const Operand<T>& operand) {
    return OnDevice<T>(operand.values().data(), operand.size());
  }
  StateRecurrence<T> Move(StateRecurrence<T> r) const {
    r.query = in.query.At(query.data());
    r.key = in.key.At(key.data());
    r.decay = in.decay.At(decay.data());
    if (r.left.data != nullptr) {
      r.left = in.left.At(left.data());
      r.right = in.right.At(right.data());
    }
    if (r.diagonal.data != nullptr) {
      r.diagonal = in.diagonal.At(diagonal.data());
    }
    return r;
  }
  StateScan<T> Move(StateScan<T> op) const {
    op.recurrence = Move(op.recurrence);
    op.value = in.value.At(value.data());
    return op;
  }
  StateScanBackward<T> Move(StateScanBackward<T> op) const {
    op.recurrence = Move(op.recurrence);
    op.value = in.value.At(value.data());
    op.dout = dout.data();
    return op;
  }
  StateAttention<T> Move(StateAttention<T> op) const {
    op.recurrence = Move(op.recurrence);
    return op;
  }

  const StateInputs<T>& in;
  OnDevice<T> query, key, decay, left, right, diagonal, value, dout;
};

// Gradients with a copy on the device, filled with -7.
template <typename T>
struct DeviceStateGradients {
  explicit DeviceStateGradients(const StateSizes& sizes)
      : host(sizes),
        dquery(host.dquery),
        dkey(host.dkey),
        ddecay(host.ddecay),
        dleft(host.dleft),
        dright(host.dright),
        ddiagonal(host.ddiagonal),
        dvalue(host.dvalue) {}
  // Of an operation whose pointers are those of the host's.
  void Move(StateScanBackward<T>& op) const {
    if (op.dquery != nullptr) op.dquery = dquery.data();
    if (op.dkey != nullptr) op.dkey = dkey.data();
    if (op.ddecay != nullptr) op.ddecay = ddecay.data();
    if (op.dleft != nullptr) op.dleft = dleft.data();
    if (op.dright != nullptr) op.dright = dright.data();
    if (op.ddiagonal != nullptr) op.ddiagonal = ddiagonal.data();
    if (op.dvalue != nullptr) op.dvalue = dvalue.data();
  }
  const StateGradients<T>& Fetch() {
    host.dquery = dquery.Fetch();
    host.dkey = dkey.Fetch();
    host.ddecay = ddecay.Fetch();
    host.dleft = dleft.Fetch();
    host.dright = dright.Fetch();
    host.ddiagonal = ddiagonal.Fetch();
    host.dvalue = dvalue.Fetch();
    return host;
  }

  StateGradients<T> host;
  OnDevice<T> dquery, dkey, ddecay, dleft, dright, ddiagonal, dvalue;
};

constexpr Sizes kShapes[] = {{1, 1, 1, 1},    {2, 3, 5, 4},    {17, 33, 16, 4},
                             {64, 5, 17, 2},  {65, 40, 16, 4}, {257, 7, 5, 16},
                             {130, 3, 64, 4}, {40, 2, 256, 3}};

template <typename T>
class CudaKernelsTest : public GpuTest {
 protected:
  std::vector<T> Attend(const DeviceInputs<T>& device, SsmAttention<T> op) {
    const int64_t size = (op.channel_end - op.channel_begin) *
                         (op.row_end - op.row_begin) * op.ssm.num_positions;
    const OnDevice<T> out(std::vector<T>(size, T{-7}));
    op = device.Move(op);
    op.out = out.data();
    EXPECT_TRUE(cuda::Run(op, stream_).ok());
    Synchronize();
    return out.Fetch();
  }
  void ExpectAttentionMatchesCpu(const DeviceInputs<T>& device,
                                 SsmAttention<T> op) {
    const std::vector<T> actual = Attend(device, op);
    std::vector<T> expected(actual.size());
    op.out = expected.data();
    ASSERT_TRUE(cpu::Run(op).ok());
    EXPECT_TRUE(Near(actual, ToDouble(expected)));
  }

  // Operations have host pointers. Outputs are filled with -7, and have a
  // number more where they are not whole: it must stay as it is.
  void ExpectScanMatchesCpu(const StateInputs<T>& in, StateScan<T> op,
                            double tolerance = kTolerance<T>) {
    std::vector<T> expected(in.sizes.Rows() * in.sizes.value, T{-7});
    const OnDevice<T> out(expected);
    op.out = expected.data();
    ASSERT_TRUE(cpu::Run(op).ok());
    const DeviceStateInputs<T> device(in);
    op = device.Move(op);
    op.out = out.data();
    ASSERT_TRUE(cuda::Run(op, stream_).ok());
    Synchronize();
    EXPECT_TRUE(Near(out.Fetch(), ToDouble(expected), tolerance));
  }
  // `op` says which gradients are wanted, by pointers that are not null.
  void ExpectBackwardMatchesCpu(const StateInputs<T>& in,
                                StateScanBackward<T> op,
                                double tolerance = 3 * kTolerance<T>) {
    StateGradients<T> expected(in.sizes);
    {
      StateScanBackward<T> on_cpu = op;
      expected.Point(on_cpu);
      if (op.dquery == nullptr) on_cpu.dquery = nullptr;
      if (op.dkey == nullptr) on_cpu.dkey = nullptr;
      if (op.ddecay == nullptr) on_cpu.ddecay = nullptr;
      if (op.dleft == nullptr) on_cpu.dleft = nullptr;
      if (op.dright == nullptr) on_cpu.dright = nullptr;
      if (op.ddiagonal == nullptr) on_cpu.ddiagonal = nullptr;
      if (op.dvalue == nullptr) on_cpu.dvalue = nullptr;
      std::vector<T> scratch(cpu::StateScanBackwardScratch(
          op.recurrence, op.value_size, op.head_end - op.head_begin));
      on_cpu.scratch = scratch.data();
      ASSERT_TRUE(cpu::Run(on_cpu).ok());
    }
    const DeviceStateInputs<T> device(in);
    const int64_t size = cuda::StateScanBackwardScratch(
        op.recurrence, op.value_size, op.head_end - op.head_begin);
    std::vector<T> fill(size + 1, std::numeric_limits<T>::quiet_NaN());
    constexpr T kCanary{12345};
    fill.back() = kCanary;
    StateGradients<T> first(in.sizes);
    for (int repetition = 0; repetition < 2; ++repetition) {
      DeviceStateGradients<T> gradients(in.sizes);
      const OnDevice<T> scratch(fill);
      StateScanBackward<T> on_device = device.Move(op);
      gradients.Move(on_device);
      on_device.scratch = scratch.data();
      ASSERT_TRUE(cuda::Run(on_device, stream_).ok());
      Synchronize();
      const StateGradients<T>& actual = gradients.Fetch();
      EXPECT_EQ(scratch.Fetch().back(), kCanary);
      for (const auto& [name, gradient] : kStateGradients<T>) {
        SCOPED_TRACE(name);
        EXPECT_TRUE(
            Near(actual.*gradient, ToDouble(expected.*gradient), tolerance));
        if (repetition > 0) {
          EXPECT_EQ(actual.*gradient, first.*gradient) << "not deterministic";
        }
      }
      first = actual;
    }
  }
  void ExpectAttentionMatchesCpu(const StateInputs<T>& in, StateAttention<T> op,
                                 double tolerance = kTolerance<T>) {
    std::vector<T> expected((op.head_end - op.head_begin) *
                                    (op.row_end - op.row_begin) *
                                    op.recurrence.num_positions +
                                1,
                            T{-7});
    const OnDevice<T> out(expected);
    op.out = expected.data();
    ASSERT_TRUE(cpu::Run(op).ok());
    const DeviceStateInputs<T> device(in);
    op = device.Move(op);
    op.out = out.data();
    ASSERT_TRUE(cuda::Run(op, stream_).ok());
    Synchronize();
    EXPECT_TRUE(Near(out.Fetch(), ToDouble(expected), tolerance));
  }
  void ExpectExpansionMatchesCpu(const ExpandInputs<T>& in, ExpandHeads<T> op) {
    // One more, so that an empty range has somewhere to write nothing to.
    std::vector<T> expected((op.channel_end - op.channel_begin) *
                                    (op.row_end - op.row_begin) *
                                    op.num_positions +
                                1,
                            T{-7});
    const OnDevice<T> out(expected);
    op.out = expected.data();
    ASSERT_TRUE(cpu::Run(op).ok());
    const ExpandSizes& sizes = in.sizes;
    const int64_t l = sizes.positions;
    const OnDevice<T> heads(in.heads.data(), sizes.heads * l * l);
    const OnDevice<T> skip(in.skip.data(), sizes.Channels());
    const OnDevice<T> source(in.source.data(), l * in.stride);
    const OnDevice<T> conv_weight(in.conv_weight.data(),
                                  sizes.Channels() * sizes.conv_width);
    const OnDevice<T> row(in.row.data(), l * in.stride);
    op.heads = heads.data();
    if (op.skip != nullptr) op.skip = skip.data();
    if (op.source_scale != nullptr) op.source_scale = source.data();
    if (op.conv_weight != nullptr) op.conv_weight = conv_weight.data();
    if (op.row_scale != nullptr) op.row_scale = row.data();
    op.out = out.data();
    ASSERT_TRUE(cuda::Run(op, stream_).ok());
    Synchronize();
    EXPECT_TRUE(Near(out.Fetch(), ToDouble(expected)));
  }
};
TYPED_TEST_SUITE(CudaKernelsTest, Precisions);

TYPED_TEST(CudaKernelsTest, SelectiveScan) {
  using T = TypeParam;
  for (const Sizes& sizes : kShapes) {
    SCOPED_TRACE(sizes.ToString());
    const Inputs<T> in(sizes);
    const DeviceInputs<T> device(in);
    std::vector<T> expected(sizes.positions * sizes.channels, T{-7});
    const OnDevice<T> y(expected);
    // All channels but the first, if there is more than one.
    SelectiveScan<T> op{in.Ssm(),      sizes.channels > 1, sizes.channels,
                        in.u.data(),   in.stride,          expected.data(),
                        sizes.channels};
    ASSERT_TRUE(cpu::Run(op).ok());
    op.ssm = device.Move(op.ssm);
    op.u = device.u.data();
    op.y = y.data();
    ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
    this->Synchronize();
    EXPECT_TRUE(Near(y.Fetch(), ToDouble(expected)));
  }
}

TYPED_TEST(CudaKernelsTest, SelectiveScanBackward) {
  using T = TypeParam;
  for (const Sizes& sizes : kShapes) {
    SCOPED_TRACE(sizes.ToString());
    const Inputs<T> in(sizes);
    const DeviceInputs<T> device(in);
    // Sums are added to what is there.
    const std::vector<T> values(sizes.positions * sizes.channels, T{-7});
    const std::vector<T> sums(sizes.positions * sizes.states, T{1});
    std::vector<T> du = values, ddelta = values, db = sums, dc = sums;
    const int64_t begin = sizes.channels > 1;
    std::vector<T> scratch(
        cpu::SelectiveScanBackwardScratch(in.Ssm(), sizes.channels - begin));
    SelectiveScanBackward<T> op{in.Ssm(),    begin,     sizes.channels,
                                in.u.data(), in.stride, in.row.data(),
                                in.stride,   du.data(), ddelta.data(),
                                db.data(),   dc.data(), scratch.data()};
    ASSERT_TRUE(cpu::Run(op).ok());

    std::vector<T> first_db;
    for (int repetition = 0; repetition < 3; ++repetition) {
      const OnDevice<T> device_du(values), device_ddelta(values);
      const OnDevice<T> device_db(sums), device_dc(sums);
      const OnDevice<T> device_scratch(std::vector<T>(
          cuda::SelectiveScanBackwardScratch(in.Ssm(), sizes.channels - begin),
          std::numeric_limits<T>::quiet_NaN()));
      op.ssm = device.Move(op.ssm);
      op.u = device.u.data();
      op.dy = device.row.data();
      op.du = device_du.data();
      op.ddelta = device_ddelta.data();
      op.db = device_db.data();
      op.dc = device_dc.data();
      op.scratch = device_scratch.data();
      ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
      this->Synchronize();
      constexpr double kBound = 3 * kTolerance<T>;
      EXPECT_TRUE(Near(device_du.Fetch(), ToDouble(du), kBound)) << "du";
      EXPECT_TRUE(Near(device_ddelta.Fetch(), ToDouble(ddelta), kBound));
      EXPECT_TRUE(Near(device_db.Fetch(), ToDouble(db), kBound)) << "db";
      EXPECT_TRUE(Near(device_dc.Fetch(), ToDouble(dc), kBound)) << "dc";
      if (repetition == 0) first_db = device_db.Fetch();
      EXPECT_EQ(device_db.Fetch(), first_db) << "not deterministic";
    }
  }
}

TYPED_TEST(CudaKernelsTest, CausalConv1d) {
  using T = TypeParam;
  for (const Sizes& sizes : kShapes) {
    SCOPED_TRACE(sizes.ToString());
    const Inputs<T> in(sizes);
    const DeviceInputs<T> device(in);
    std::vector<T> expected(sizes.positions * sizes.channels);
    const OnDevice<T> out(expected);
    CausalConv1d<T> op{sizes.positions,     sizes.channels,
                       sizes.conv_width,    in.conv_weight.data(),
                       in.conv_bias.data(), in.u.data(),
                       in.stride,           expected.data(),
                       sizes.channels};
    ASSERT_TRUE(cpu::Run(op).ok());
    op.weight = device.conv_weight.data();
    op.bias = device.conv_bias.data();
    op.x = device.u.data();
    op.out = out.data();
    ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
    this->Synchronize();
    EXPECT_TRUE(Near(out.Fetch(), ToDouble(expected)));
  }
}

TYPED_TEST(CudaKernelsTest, SsmAttentionOfAllShapes) {
  for (const Sizes& sizes : kShapes) {
    SCOPED_TRACE(sizes.ToString());
    const Inputs<TypeParam> in(sizes);
    const DeviceInputs<TypeParam> device(in);
    this->ExpectAttentionMatchesCpu(device, in.Attention());
  }
}

TYPED_TEST(CudaKernelsTest, SsmAttentionWithoutFactorsAndInRanges) {
  const Inputs<TypeParam> in(Sizes{131, 6, 16, 4});
  const DeviceInputs<TypeParam> device(in);
  for (int missing = 0; missing < 16; ++missing) {
    SCOPED_TRACE(absl::StrCat("missing factors: ", missing));
    auto op = in.Attention();
    op.channel_begin = 1;
    op.channel_end = 5;
    op.row_begin = 63;
    op.row_end = 130;
    if (missing & 1) op.ssm.skip = nullptr;
    if (missing & 2) op.source_scale = nullptr;
    if (missing & 4) op.conv_weight = nullptr;
    if (missing & 8) op.row_scale = nullptr;
    this->ExpectAttentionMatchesCpu(device, op);
    op.row_begin = op.row_end - 1;
    this->ExpectAttentionMatchesCpu(device, op);
  }
}

TYPED_TEST(CudaKernelsTest, SsmAttentionOfExtremeDecays) {
  for (const double max_delta : {0.0, 1e3}) {
    SCOPED_TRACE(absl::StrCat("delta up to ", max_delta));
    const Inputs<TypeParam> in(Sizes{100, 3, 16}, max_delta, 1e6);
    const DeviceInputs<TypeParam> device(in);
    this->ExpectAttentionMatchesCpu(device, in.Attention());
  }
}

TYPED_TEST(CudaKernelsTest, StateScan) {
  for (const StateSizes& sizes : kStateShapes) {
    SCOPED_TRACE(sizes.ToString());
    ForEachStateOption([&](const StateOptions& options) {
      const StateInputs<TypeParam> in(sizes, options);
      this->ExpectScanMatchesCpu(in, in.Scan());
    });
  }
}

TYPED_TEST(CudaKernelsTest, StateScanOfPackedSequences) {
  const OnDevice<int64_t> begins(kBegins, std::size(kBegins));
  for (const StateSizes& sizes : kPackedShapes) {
    SCOPED_TRACE(sizes.ToString());
    ForEachStateOption([&](const StateOptions& options) {
      const StateInputs<TypeParam> in(sizes, options);
      std::vector<TypeParam> expected(sizes.Rows() * sizes.value);
      const OnDevice<TypeParam> out(expected);
      StateScan<TypeParam> op = Packed(in.Scan(), kBegins);
      op.out = expected.data();
      ASSERT_TRUE(cpu::Run(op).ok());
      const DeviceStateInputs<TypeParam> device(in);
      op = Packed(device.Move(in.Scan()), begins.data());
      op.out = out.data();
      ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
      this->Synchronize();
      EXPECT_TRUE(Near(out.Fetch(), ToDouble(expected)));
    });
  }
}

// All sizes of groups of threads, full and not.
TYPED_TEST(CudaKernelsTest, StateScanOfAllStateSizes) {
  StateOptions options;
  options.rank_one = true;
  for (const int64_t size : {1, 2, 4, 5, 16, 17, 63, 65, 128, 129, 255}) {
    SCOPED_TRACE(absl::StrCat("size ", size));
    const StateInputs<TypeParam> long_key({1, 5, 3, size, 7}, options);
    this->ExpectScanMatchesCpu(long_key, long_key.Scan());
    const StateInputs<TypeParam> both({1, 6, 2, size, size}, options);
    StateGradients<TypeParam> wanted(both.sizes);
    StateScanBackward<TypeParam> backward = both.Backward();
    wanted.Point(backward);
    this->ExpectBackwardMatchesCpu(both, backward);
    this->ExpectAttentionMatchesCpu(both, both.Attention());
  }
}

TYPED_TEST(CudaKernelsTest, StateScanOfSomeHeads) {
  for (const StateSizes& sizes :
       {StateSizes{2, 9, 70, 1, 2}, StateSizes{2, 9, 6, 9, 20}}) {
    for (int present = 0; present < 4; ++present) {
      StateOptions options;
      options.rank_one = present & 1;
      options.diagonal = present & 2;
      SCOPED_TRACE(sizes.ToString() + " " + options.ToString());
      const StateInputs<TypeParam> in(sizes, options);
      StateScan<TypeParam> scan = in.Scan();
      StateGradients<TypeParam> wanted(sizes);
      StateScanBackward<TypeParam> backward = in.Backward();
      wanted.Point(backward);
      scan.head_begin = backward.head_begin = 3;
      scan.head_end = backward.head_end = sizes.heads + 4;
      this->ExpectScanMatchesCpu(in, scan);
      this->ExpectBackwardMatchesCpu(in, backward);
      scan.head_begin = backward.head_begin = scan.head_end;
      this->ExpectScanMatchesCpu(in, scan);
      this->ExpectBackwardMatchesCpu(in, backward);
    }
  }
}

TYPED_TEST(CudaKernelsTest, StateScanBackward) {
  for (const StateSizes& sizes : kStateShapes) {
    SCOPED_TRACE(sizes.ToString());
    ForEachStateOption([&](const StateOptions& options) {
      const StateInputs<TypeParam> in(sizes, options);
      StateGradients<TypeParam> wanted(sizes);
      StateScanBackward<TypeParam> op = in.Backward();
      wanted.Point(op);
      this->ExpectBackwardMatchesCpu(in, op);
    });
  }
}

TYPED_TEST(CudaKernelsTest, StateScanBackwardOfSomeGradients) {
  StateOptions options;
  options.rank_one = options.diagonal = true;
  const StateInputs<TypeParam> in({1, 20, 3, 5, 6}, options);
  StateGradients<TypeParam> pointers(in.sizes);
  StateScanBackward<TypeParam> all = in.Backward();
  pointers.Point(all);
  StateScanBackward<TypeParam> value_only = in.Backward();
  value_only.dvalue = all.dvalue;
  this->ExpectBackwardMatchesCpu(in, value_only);
  StateScanBackward<TypeParam> all_others = all;
  all_others.dvalue = nullptr;
  this->ExpectBackwardMatchesCpu(in, all_others);
  StateScanBackward<TypeParam> right_only = in.Backward();
  right_only.dright = all.dright;
  this->ExpectBackwardMatchesCpu(in, right_only);
  this->ExpectBackwardMatchesCpu(in, in.Backward());
}

TYPED_TEST(CudaKernelsTest, StateKernelsAtExtremeDecays) {
  for (const double decay : {0.0, 1.0}) {
    for (const StateSizes& sizes :
         {StateSizes{1, 1025, 70, 1, 1}, StateSizes{1, 1025, 2, 16, 17}}) {
      SCOPED_TRACE(absl::StrCat(sizes.ToString(), ", decay ", decay));
      StateOptions options;
      options.min_decay = options.max_decay = decay;
      const StateInputs<TypeParam> in(sizes, options);
      this->ExpectScanMatchesCpu(in, in.Scan(), 20 * kTolerance<TypeParam>);
      StateGradients<TypeParam> wanted(sizes);
      StateScanBackward<TypeParam> backward = in.Backward();
      wanted.Point(backward);
      this->ExpectBackwardMatchesCpu(in, backward, 20 * kTolerance<TypeParam>);
      StateAttention<TypeParam> attention = in.Attention();
      attention.head_end = 2;
      this->ExpectAttentionMatchesCpu(in, attention);
    }
  }
}

TYPED_TEST(CudaKernelsTest, StateAttention) {
  for (StateSizes sizes : kStateShapes) {
    SCOPED_TRACE(sizes.ToString());
    ForEachStateOption([&](const StateOptions& options) {
      const StateInputs<TypeParam> in(sizes, options);
      StateAttention<TypeParam> op = in.Attention();
      this->ExpectAttentionMatchesCpu(in, op);
      // The last row of all heads.
      op.row_begin = op.row_end - 1;
      this->ExpectAttentionMatchesCpu(in, op);
    });
  }
}

TYPED_TEST(CudaKernelsTest, StateAttentionInRanges) {
  for (const int64_t states : {1, 3, 9, 33, 100, 200}) {
    for (int present = 0; present < 4; ++present) {
      StateOptions options;
      options.rank_one = present & 1;
      options.diagonal = present & 2;
      const StateInputs<TypeParam> in({2, 131, 150, states, 1}, options);
      for (const auto& [row_begin, row_end] : std::vector<std::pair<int, int>>{
               {0, 1}, {5, 8}, {31, 40}, {60, 131}, {7, 7}}) {
        SCOPED_TRACE(absl::StrCat(in.sizes.ToString(), " ", options.ToString(),
                                  ", rows ", row_begin, " to ", row_end));
        StateAttention<TypeParam> op = in.Attention();
        op.sequence = row_begin % 2;
        op.row_begin = row_begin;
        op.row_end = row_end;
        op.head_begin = 1;
        op.head_end = row_end - row_begin > 20 ? 4 : 140;
        this->ExpectAttentionMatchesCpu(in, op);
      }
    }
  }
}

TYPED_TEST(CudaKernelsTest, ExpandHeads) {
  for (const ExpandSizes& sizes :
       {ExpandSizes{1, 1, 1, 1}, ExpandSizes{3, 2, 5, 4},
        ExpandSizes{130, 3, 7, 4}, ExpandSizes{65, 19, 1, 16}}) {
    for (int missing = 0; missing < 16; ++missing) {
      SCOPED_TRACE(
          absl::StrCat(sizes.ToString(), ", missing factors: ", missing));
      const ExpandInputs<TypeParam> in(sizes);
      this->ExpectExpansionMatchesCpu(in, in.Op(missing));
    }
  }
}

TYPED_TEST(CudaKernelsTest, ExpandHeadsInRanges) {
  const ExpandInputs<TypeParam> in({137, 6, 5, 4});
  for (const auto& [row_begin, row_end] : std::vector<std::pair<int, int>>{
           {0, 1}, {100, 137}, {136, 137}, {7, 7}}) {
    for (const auto& [channel_begin, channel_end] :
         std::vector<std::pair<int, int>>{{0, 1}, {4, 26}, {12, 30}, {9, 9}}) {
      SCOPED_TRACE(absl::StrCat("rows ", row_begin, " to ", row_end,
                                ", channels ", channel_begin, " to ",
                                channel_end));
      ExpandHeads<TypeParam> op = in.Op(0);
      op.row_begin = row_begin;
      op.row_end = row_end;
      op.channel_begin = channel_begin;
      op.channel_end = channel_end;
      op.head_begin = channel_begin / in.sizes.channels_per_head;
      this->ExpectExpansionMatchesCpu(in, op);
    }
  }
}

TYPED_TEST(CudaKernelsTest, FoldChannels) {
  using T = TypeParam;
  constexpr int64_t kChannels = 5, kEntries = 1000;
  std::mt19937_64 g(1);
  const auto slab = Values<T>::Random(kChannels * kEntries, -1, 1, g);
  const auto weight = Values<T>::Random(kChannels, 0, 1, g);
  const OnDevice<T> device_slab(slab.data(), kChannels * kEntries);
  const OnDevice<T> device_weight(weight.data(), kChannels);
  for (int fold = 0; fold <= static_cast<int>(ChannelFold::kWeightedSumAbs);
       ++fold) {
    SCOPED_TRACE(absl::StrCat("fold ", fold));
    std::vector<T> expected(kEntries, T{0.25});
    const OnDevice<T> actual(expected);
    FoldChannels<T> op{static_cast<ChannelFold>(fold),
                       kChannels,
                       kEntries,
                       slab.data(),
                       weight.data(),
                       expected.data(),
                       kEntries};
    ASSERT_TRUE(cpu::Run(op).ok());
    op.slab = device_slab.data();
    op.weight = device_weight.data();
    op.accumulator = actual.data();
    ASSERT_TRUE(cuda::Run(op, this->stream_).ok());
    this->Synchronize();
    EXPECT_TRUE(Near(actual.Fetch(), ToDouble(expected)));
  }
}

TYPED_TEST(CudaKernelsTest, RefusesWhatValidateRefuses) {
  EXPECT_FALSE(cuda::Run(SelectiveScan<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(
      cuda::Run(SelectiveScanBackward<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(cuda::Run(CausalConv1d<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(cuda::Run(SsmAttention<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(cuda::Run(StateScan<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(cuda::Run(StateScanBackward<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(cuda::Run(StateAttention<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(cuda::Run(ExpandHeads<TypeParam>{}, this->stream_).ok());
  EXPECT_FALSE(cuda::Run(FoldChannels<TypeParam>{}, this->stream_).ok());
}

}  // namespace
}  // namespace limpid::kernels
