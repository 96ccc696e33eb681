// SPDX-License-Identifier: Apache-2.0
//
// HeadsFold against the matrices of the CPU in double precision. Needs a GPU;
// skipped without.
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/kernels/ops.h"
#include "tests/unit/kernels/device_inputs.h"
#include "tests/unit/kernels/fold_testing.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {
namespace {

// Lower triangular matrices of heads, and what surrounds them.
struct HeadsInputs {
  HeadsInputs(int64_t length, int64_t heads, int64_t per_head,
              int64_t width = 4)
      : length(length),
        heads(heads),
        per_head(per_head),
        channels(heads * per_head),
        width(width) {
    std::mt19937_64 g(11);
    matrices = Values<float>::Random(heads * length * length, -1, 1, g);
    std::vector<double> lower(matrices.data(),
                              matrices.data() + heads * length * length);
    for (int64_t at = 0; at < heads * length * length; ++at) {
      if (at % length > at / length % length) lower[at] = 0;
    }
    matrices = Values<float>(lower);
    const int64_t size = length * channels;
    skip = Values<float>::Random(channels, -1, 1, g);
    source = Values<float>::Random(size, 0, 1, g);
    row = Values<float>::Random(size, -1, 1, g);
    value = Values<float>::Random(size, -1, 1, g);
    conv_weight = Values<float>::Random(channels * width, -1, 1, g);
    weight = Values<float>::Random(channels, 0, 1, g);
  }

  int64_t length, heads, per_head, channels, width;
  Values<float> matrices, skip, source, row, value, conv_weight, weight;
};

// Which parts an op has.
struct Parts {
  bool skip = true;
  bool conv = true;
  bool source = true;
  bool row = true;
};

ExpectedFolds Expected(const HeadsInputs& in, const Parts& parts,
                       ChannelFold fold) {
  ExpectedFolds out(fold, in.length, in.channels);
  std::vector<double> entries(in.length * in.length);
  ExpandHeads<double> expand;
  expand.num_positions = in.length;
  expand.channels_per_head = in.per_head;
  if (parts.skip) expand.skip = in.skip.exact();
  if (parts.source) expand.source_scale = in.source.exact();
  expand.source_stride = in.channels;
  if (parts.conv) expand.conv_weight = in.conv_weight.exact();
  expand.conv_width = in.width;
  if (parts.row) expand.row_scale = in.row.exact();
  expand.row_stride = in.channels;
  expand.row_end = in.length;
  expand.out = entries.data();
  expand.heads = in.matrices.exact();
  for (int64_t c = 0; c < in.channels; ++c) {
    expand.channel_begin = c;
    expand.channel_end = c + 1;
    EXPECT_TRUE(cpu::Run(expand).ok());
    out.Add(c, entries, in.weight.exact(), in.value.exact(), in.channels);
  }
  return out;
}

class CudaHeadsFoldTest : public GpuTest {
 protected:
  // By ranges of at most `step` rows.
  void Fold(const HeadsInputs& in, const Parts& parts, ChannelFold fold,
            int64_t step, bool products, std::vector<float>& matrix,
            std::vector<float>& product) {
    const int64_t length = in.length, size = length * in.channels;
    const OnDevice<float> skip(in.skip.data(), in.channels);
    const OnDevice<float> source(in.source.data(), size);
    const OnDevice<float> row(in.row.data(), size);
    const OnDevice<float> value(in.value.data(), size);
    const OnDevice<float> conv(in.conv_weight.data(), in.channels * in.width);
    const OnDevice<float> weight(in.weight.data(), in.channels);
    const OnDevice<float> accumulator(
        std::vector<float>(length * length, static_cast<float>(StartOf(fold))));
    const OnDevice<float> out(std::vector<float>(size, -7));
    for (int64_t begin = 0; begin < length; begin += step) {
      const int64_t end = std::min(length, begin + step);
      std::vector<float> rows;
      for (int64_t head = 0; head < in.heads; ++head) {
        const float* const of_head =
            in.matrices.data() + head * length * length;
        rows.insert(rows.end(), of_head + begin * length,
                    of_head + end * length);
      }
      const OnDevice<float> heads(rows);
      HeadsFold<float> op;
      op.expand.num_positions = length;
      op.expand.channels_per_head = in.per_head;
      op.expand.heads = heads.data();
      if (parts.skip) op.expand.skip = skip.data();
      if (parts.source) op.expand.source_scale = source.data();
      op.expand.source_stride = in.channels;
      if (parts.conv) op.expand.conv_weight = conv.data();
      op.expand.conv_width = in.width;
      if (parts.row) op.expand.row_scale = row.data();
      op.expand.row_stride = in.channels;
      op.expand.channel_end = in.channels;
      op.expand.row_begin = begin;
      op.expand.row_end = end;
      op.fold = fold;
      op.weight = weight.data();
      op.accumulator = accumulator.data() + begin * length;
      if (products) {
        op.value = value.data();
        op.value_stride = in.channels;
        op.product = out.data() + begin * in.channels;
      }
      RunFold(op);
    }
    matrix = accumulator.Fetch();
    product = out.Fetch();
  }

  void ExpectMatches(const HeadsInputs& in, const Parts& parts,
                     ChannelFold fold = ChannelFold::kSumAbs,
                     int64_t step = std::numeric_limits<int32_t>::max()) {
    std::vector<float> matrix, product, again, product_again;
    Fold(in, parts, fold, step, true, matrix, product);
    if (HasFatalFailure()) return;
    const ExpectedFolds expected = Expected(in, parts, fold);
    EXPECT_LE(RelativeError(matrix, expected.matrix), 2e-6);
    EXPECT_LE(RelativeError(product, expected.product), 2e-6);
    Fold(in, parts, fold, step, true, again, product_again);
    EXPECT_EQ(matrix, again) << "not deterministic";
    EXPECT_EQ(product, product_again) << "not deterministic";
    Fold(in, parts, fold, step, false, again, product_again);
    EXPECT_LE(RelativeError(again, expected.matrix), 2e-6);
  }
};

TEST_F(CudaHeadsFoldTest, AllLengths) {
  for (const int64_t length : {1, 2, 7, 8, 9, 31, 127, 128, 129, 136, 260}) {
    SCOPED_TRACE(absl::StrCat("L=", length));
    ExpectMatches(HeadsInputs(length, 3, 5), Parts());
    ExpectMatches(HeadsInputs(length, 2, 33), {true, false, true, true});
  }
}

TEST_F(CudaHeadsFoldTest, EveryFold) {
  for (const ChannelFold fold : kFolds) {
    SCOPED_TRACE(absl::StrCat("fold ", static_cast<int>(fold)));
    ExpectMatches(HeadsInputs(150, 3, 17), Parts(), fold);
    ExpectMatches(HeadsInputs(150, 3, 17), {false, false, false, false}, fold);
  }
}

TEST_F(CudaHeadsFoldTest, NumbersOfChannels) {
  for (const int64_t per_head : {1, 2, 31, 32, 33, 64, 100}) {
    SCOPED_TRACE(absl::StrCat("P=", per_head));
    ExpectMatches(HeadsInputs(140, 1, per_head), Parts());
    ExpectMatches(HeadsInputs(140, 4, per_head), Parts());
  }
}

TEST_F(CudaHeadsFoldTest, EveryNumberOfTapsAndEveryPart) {
  for (const int64_t width : {1, 2, 3, 4}) {
    SCOPED_TRACE(absl::StrCat(width, " taps"));
    ExpectMatches(HeadsInputs(135, 2, 9, width), Parts());
  }
  for (int without = 0; without < 16; ++without) {
    SCOPED_TRACE(absl::StrCat("without ", without));
    ExpectMatches(HeadsInputs(135, 2, 9),
                  {(without & 1) == 0, (without & 2) == 0, (without & 4) == 0,
                   (without & 8) == 0});
  }
}

TEST_F(CudaHeadsFoldTest, RangesOfRows) {
  for (const int64_t step : {1, 8, 30, 128}) {
    SCOPED_TRACE(absl::StrCat(step, " rows at a time"));
    for (const ChannelFold fold : {ChannelFold::kSumAbs, ChannelFold::kMax}) {
      ExpectMatches(HeadsInputs(200, 2, 12), Parts(), fold, step);
    }
  }
}

TEST_F(CudaHeadsFoldTest, RefusesWhatItDoesNotTake) {
  HeadsFold<float> op;
  EXPECT_TRUE(cuda::CanFold(op));
  const float numbers[5] = {};
  op.expand.conv_weight = numbers;
  op.expand.conv_width = 5;
  EXPECT_FALSE(cuda::CanFold(op));
  EXPECT_FALSE(cuda::Run(HeadsFold<float>(), stream_).ok());
}

}  // namespace
}  // namespace limpid::kernels
