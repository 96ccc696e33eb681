// SPDX-License-Identifier: Apache-2.0
//
// Arrays on a GPU for the kernel tests, and inputs that are there as well.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {

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

// Skips without a GPU.
class GpuTest : public testing::Test {
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
  void Synchronize() const {
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  }
  // Runs a fold, all else of which is set, and waits for it; checks that it
  // writes no scratch beyond what it asked for.
  template <typename Op>
  void RunFold(Op op) const {
    ASSERT_TRUE(cuda::CanFold(op));
    constexpr unsigned char kCanary = 199;
    // Bytes that make numbers that are none, lest anything counts on zeros.
    std::vector<unsigned char> fill(cuda::FoldScratchBytes(op) + 1, 255);
    fill.back() = kCanary;
    const OnDevice<unsigned char> scratch(fill);
    op.scratch = scratch.data();
    const absl::Status status = cuda::Run(op, stream_);
    ASSERT_TRUE(status.ok()) << status;
    Synchronize();
    EXPECT_EQ(scratch.Fetch().back(), kCanary);
  }

  cudaStream_t stream_ = nullptr;
};

}  // namespace limpid::kernels
