// SPDX-License-Identifier: Apache-2.0
//
// Every CUDA operation against its CPU version. Needs a GPU; skipped without.
#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {
namespace {

// An array on the device.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values) : size_(values.size()) {
    EXPECT_EQ(cudaMalloc(&data_, size_ * sizeof(T) + 1), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data_, values.data(), size_ * sizeof(T),
                         cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  OnDevice(const T* values, int64_t size)
      : OnDevice(std::vector<T>(values, values + size)) {}
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { cudaFree(data_); }

  T* data() const { return data_; }
  // Waits for the device.
  std::vector<T> Fetch() const {
    std::vector<T> values(size_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, size_ * sizeof(T),
                         cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }

 private:
  size_t size_;
  T* data_ = nullptr;
};

// Inputs with a copy on the device.
template <typename T>
struct DeviceInputs {
  explicit DeviceInputs(const Inputs<T>& in)
      : delta(Rows(in, in.delta)),
        a(in.a.data(), in.sizes.channels * in.sizes.states),
        b(in.b.data(), in.sizes.positions * in.state_stride),
        c(in.c.data(), in.sizes.positions * in.state_stride),
        skip(in.skip.data(), in.sizes.channels),
        u(Rows(in, in.u)),
        source(Rows(in, in.source)),
        row(Rows(in, in.row)),
        conv_weight(in.conv_weight.data(),
                    in.sizes.channels * in.sizes.conv_width),
        conv_bias(in.conv_bias.data(), in.sizes.channels) {}

  static std::vector<T> Rows(const Inputs<T>& in, const Values<T>& values) {
    return {values.data(), values.data() + in.sizes.positions * in.stride};
  }
  SelectiveSsm<T> Move(SelectiveSsm<T> ssm) const {
    ssm.delta = delta.data();
    ssm.a = a.data();
    ssm.b = b.data();
    ssm.c = c.data();
    if (ssm.skip != nullptr) ssm.skip = skip.data();
    return ssm;
  }
  SsmAttention<T> Move(SsmAttention<T> op) const {
    op.ssm = Move(op.ssm);
    if (op.source_scale != nullptr) op.source_scale = source.data();
    if (op.conv_weight != nullptr) op.conv_weight = conv_weight.data();
    if (op.row_scale != nullptr) op.row_scale = row.data();
    return op;
  }

  OnDevice<T> delta, a, b, c, skip, u, source, row, conv_weight, conv_bias;
};

template <typename T>
std::vector<double> ToDouble(const std::vector<T>& values) {
  return {values.begin(), values.end()};
}

constexpr Sizes kShapes[] = {{1, 1, 1, 1},    {2, 3, 5, 4},    {17, 33, 16, 4},
                             {64, 5, 17, 2},  {65, 40, 16, 4}, {257, 7, 5, 16},
                             {130, 3, 64, 4}, {40, 2, 256, 3}};

template <typename T>
class CudaKernelsTest : public testing::Test {
 protected:
  void SetUp() override {
    int num_devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&num_devices);
    if (error != cudaSuccess || num_devices == 0) {
      GTEST_SKIP() << "no CUDA device: " << cudaGetErrorString(error);
    }
    ASSERT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
  }
  void TearDown() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  void Synchronize() { ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }

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

  cudaStream_t stream_ = nullptr;
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
                       expected.data()};
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
  EXPECT_FALSE(cuda::Run(FoldChannels<TypeParam>{}, this->stream_).ok());
}

}  // namespace
}  // namespace limpid::kernels
