// SPDX-License-Identifier: Apache-2.0
//
// ScalarAttentionFold against the matrices of the CPU in double precision.
// Needs a GPU; skipped without.
#include <cstdint>
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

// A recurrence of D heads with one state and one channel, and what surrounds
// it. Numbers are [L, D] and contiguous.
struct ScalarInputs {
  ScalarInputs(int64_t length, int64_t channels, double least_decay = 0,
               int64_t width = 4)
      : length(length), channels(channels), width(width) {
    std::mt19937_64 g(3);
    const int64_t size = length * channels;
    query = Values<float>::Random(size, -1, 1, g);
    key = Values<float>::Random(size, -1, 1, g);
    decay = Values<float>::Random(size, least_decay, 1, g);
    diagonal = Values<float>::Random(size, -1, 1, g);
    source = Values<float>::Random(size, 0, 1, g);
    row = Values<float>::Random(size, -1, 1, g);
    value = Values<float>::Random(size, -1, 1, g);
    conv_weight = Values<float>::Random(channels * width, -1, 1, g);
    weight = Values<float>::Random(channels, 0, 1, g);
  }

  int64_t length, channels, width;
  Values<float> query, key, decay, diagonal, source, row, value, conv_weight,
      weight;
};

// Which parts an op has.
struct Parts {
  bool diagonal = false;
  bool conv = true;
  bool source = true;
  bool row = true;
};

template <typename T>
HeadOperand<T> Operand(const T* data, int64_t channels) {
  return {data, 0, channels, 1, 1};
}

ExpectedFolds Expected(const ScalarInputs& in, const Parts& parts,
                       ChannelFold fold) {
  const int64_t length = in.length, channels = in.channels;
  ExpectedFolds out(fold, length, channels);
  std::vector<double> head(length * length), entries(length * length);
  StateAttention<double> attention;
  StateRecurrence<double>& recurrence = attention.recurrence;
  recurrence.num_positions = length;
  recurrence.num_heads = channels;
  recurrence.key_size = 1;
  recurrence.query = Operand(in.query.exact(), channels);
  recurrence.key = Operand(in.key.exact(), channels);
  recurrence.decay = Operand(in.decay.exact(), channels);
  if (parts.diagonal) {
    recurrence.diagonal = Operand(in.diagonal.exact(), channels);
  }
  attention.row_end = length;
  attention.out = head.data();
  ExpandHeads<double> expand;
  expand.num_positions = length;
  expand.heads = head.data();
  if (parts.source) expand.source_scale = in.source.exact();
  expand.source_stride = channels;
  if (parts.conv) expand.conv_weight = in.conv_weight.exact();
  expand.conv_width = in.width;
  if (parts.row) expand.row_scale = in.row.exact();
  expand.row_stride = channels;
  expand.row_end = length;
  expand.out = entries.data();
  for (int64_t c = 0; c < channels; ++c) {
    attention.head_begin = expand.head_begin = expand.channel_begin = c;
    attention.head_end = expand.channel_end = c + 1;
    EXPECT_TRUE(cpu::Run(attention).ok());
    EXPECT_TRUE(cpu::Run(expand).ok());
    out.Add(c, entries, in.weight.exact(), in.value.exact(), channels);
  }
  return out;
}

class CudaScalarFoldTest : public GpuTest {
 protected:
  void Fold(const ScalarInputs& in, const Parts& parts, ChannelFold fold,
            std::vector<float>& matrix, std::vector<float>& product) {
    const int64_t size = in.length * in.channels;
    const OnDevice<float> query(in.query.data(), size);
    const OnDevice<float> key(in.key.data(), size);
    const OnDevice<float> decay(in.decay.data(), size);
    const OnDevice<float> diagonal(in.diagonal.data(), size);
    const OnDevice<float> source(in.source.data(), size);
    const OnDevice<float> row(in.row.data(), size);
    const OnDevice<float> value(in.value.data(), size);
    const OnDevice<float> conv(in.conv_weight.data(), in.channels * in.width);
    const OnDevice<float> weight(in.weight.data(), in.channels);
    const OnDevice<float> accumulator(std::vector<float>(
        in.length * in.length, static_cast<float>(StartOf(fold))));
    const OnDevice<float> products(std::vector<float>(size, -7));
    ScalarAttentionFold<float> op;
    op.recurrence.num_positions = in.length;
    op.recurrence.num_heads = in.channels;
    op.recurrence.key_size = 1;
    op.recurrence.query = Operand<float>(query.data(), in.channels);
    op.recurrence.key = Operand<float>(key.data(), in.channels);
    op.recurrence.decay = Operand<float>(decay.data(), in.channels);
    if (parts.diagonal) {
      op.recurrence.diagonal = Operand<float>(diagonal.data(), in.channels);
    }
    if (parts.source) op.source_scale = source.data();
    op.source_stride = in.channels;
    if (parts.conv) op.conv_weight = conv.data();
    op.conv_width = in.width;
    if (parts.row) op.row_scale = row.data();
    op.row_stride = in.channels;
    op.fold = fold;
    op.weight = weight.data();
    op.accumulator = accumulator.data();
    op.value = value.data();
    op.value_stride = in.channels;
    op.product = products.data();
    RunFold(op);
    matrix = accumulator.Fetch();
    product = products.Fetch();
  }

  void ExpectMatches(const ScalarInputs& in, const Parts& parts,
                     ChannelFold fold = ChannelFold::kSumAbs) {
    std::vector<float> matrix, product, matrix_again, product_again;
    Fold(in, parts, fold, matrix, product);
    if (HasFatalFailure()) return;
    const ExpectedFolds expected = Expected(in, parts, fold);
    EXPECT_LE(RelativeError(matrix, expected.matrix), 2e-6);
    EXPECT_LE(RelativeError(product, expected.product), 2e-6);
    EXPECT_TRUE(Near(matrix, expected.matrix, 4e-6));
    Fold(in, parts, fold, matrix_again, product_again);
    EXPECT_EQ(matrix, matrix_again) << "not deterministic";
    EXPECT_EQ(product, product_again) << "not deterministic";
  }
};

TEST_F(CudaScalarFoldTest, MatchesTheCpuAtBordersOfBlocks) {
  for (const bool diagonal : {false, true}) {
    for (const int64_t length :
         {1,   2,   5,   6,   7,   8,   9,   15,  16,  17,
          31,  32,  33,  63,  64,  65,  125, 126, 127, 128,
          129, 131, 132, 133, 256, 257, 300, 1023}) {
      SCOPED_TRACE(absl::StrCat("L=", length, " diagonal ", diagonal));
      Parts parts;
      parts.diagonal = diagonal;
      ExpectMatches(ScalarInputs(length, 37, 0.8), parts);
    }
  }
}

TEST_F(CudaScalarFoldTest, EveryFold) {
  for (const ChannelFold fold : kFolds) {
    SCOPED_TRACE(absl::StrCat("fold ", static_cast<int>(fold)));
    for (const int64_t length : {1, 65, 300}) {
      for (const bool diagonal : {false, true}) {
        SCOPED_TRACE(absl::StrCat("L=", length, " diagonal ", diagonal));
        Parts parts;
        parts.diagonal = diagonal;
        ExpectMatches(ScalarInputs(length, 21, 0.9), parts, fold);
      }
    }
  }
}

TEST_F(CudaScalarFoldTest, EveryNumberOfTaps) {
  for (const int64_t width : {1, 2, 3, 4}) {
    for (const bool diagonal : {false, true}) {
      SCOPED_TRACE(absl::StrCat(width, " taps, diagonal ", diagonal));
      Parts parts;
      parts.diagonal = diagonal;
      ExpectMatches(ScalarInputs(270, 33, 0.9, width), parts);
    }
  }
}

TEST_F(CudaScalarFoldTest, NumbersOfChannels) {
  for (const int64_t channels : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 129}) {
    for (const ChannelFold fold : {ChannelFold::kSumAbs, ChannelFold::kMax}) {
      SCOPED_TRACE(absl::StrCat("D=", channels));
      ExpectMatches(ScalarInputs(261, channels, 0.9), Parts(), fold);
    }
  }
}

// More channels in a split than decays between blocks are kept of. The same few
// channels again and again, lest what is expected takes long.
TEST_F(CudaScalarFoldTest, ManyChannels) {
  constexpr int64_t kLength = 2048, kFew = 4, kTimes = 170;
  const ScalarInputs few(kLength, kFew, 0.99);
  ScalarInputs many(kLength, kFew * kTimes);
  const auto repeat = [](const Values<float>& from, int64_t row, int64_t rows,
                         Values<float>& to) {
    std::vector<double> numbers;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t time = 0; time < kTimes; ++time) {
        numbers.insert(numbers.end(), from.data() + i * row,
                       from.data() + (i + 1) * row);
      }
    }
    to = Values<float>(numbers);
  };
  repeat(few.query, kFew, kLength, many.query);
  repeat(few.key, kFew, kLength, many.key);
  repeat(few.decay, kFew, kLength, many.decay);
  repeat(few.source, kFew, kLength, many.source);
  repeat(few.row, kFew, kLength, many.row);
  repeat(few.value, kFew, kLength, many.value);
  repeat(few.conv_weight, kFew * few.width, 1, many.conv_weight);
  std::vector<float> matrix, product;
  Fold(many, Parts(), ChannelFold::kSumAbs, matrix, product);
  if (HasFatalFailure()) return;
  ExpectedFolds expected = Expected(few, Parts(), ChannelFold::kSumAbs);
  for (double& entry : expected.matrix) entry *= kTimes;
  EXPECT_LE(RelativeError(matrix, expected.matrix), 2e-6);
  std::vector<double> products;
  for (int64_t i = 0; i < kLength; ++i) {
    for (int64_t c = 0; c < many.channels; ++c) {
      products.push_back(expected.product[i * kFew + c % kFew]);
    }
  }
  EXPECT_LE(RelativeError(product, products), 2e-6);
}

// Decays that are zero now and then, and numbers whose squares are too small or
// too large for float32.
TEST_F(CudaScalarFoldTest, ExtremeNumbers) {
  ScalarInputs in(300, 21, 0.5);
  std::vector<double> query, key, decay;
  for (int64_t at = 0; at < in.length * in.channels; ++at) {
    query.push_back(in.query.data()[at] * 1e-25);
    key.push_back(in.key.data()[at] * 1e24);
    decay.push_back(at % 13 == 0 ? 0.0 : in.decay.data()[at]);
  }
  in.query = Values<float>(query);
  in.key = Values<float>(key);
  in.decay = Values<float>(decay);
  for (const ChannelFold fold : kFolds) {
    SCOPED_TRACE(absl::StrCat("fold ", static_cast<int>(fold)));
    ExpectMatches(in, Parts(), fold);
  }
}

TEST_F(CudaScalarFoldTest, PartsThatAreNotThere) {
  const ScalarInputs in(260, 19, 0.9, 3);
  ExpectMatches(in, {false, false, false, false});
  ExpectMatches(in, {true, false, false, true});
  ExpectMatches(in, {true, true, false, true});
  ExpectMatches(in, {false, true, true, false});
}

TEST_F(CudaScalarFoldTest, DecaysFromAllToNone) {
  ExpectMatches(ScalarInputs(520, 5, 0), Parts());
  ExpectMatches(ScalarInputs(520, 5, 0.999), Parts());
  ExpectMatches(ScalarInputs(520, 5, 1), Parts());
}

TEST_F(CudaScalarFoldTest, RefusesWhatItDoesNotTake) {
  ScalarAttentionFold<float> op;
  op.recurrence.key_size = 2;
  EXPECT_FALSE(cuda::CanFold(op));
  op.recurrence.key_size = 1;
  EXPECT_TRUE(cuda::CanFold(op));
  const float numbers[5] = {};
  op.recurrence.left.data = numbers;
  EXPECT_FALSE(cuda::CanFold(op));
}

}  // namespace
}  // namespace limpid::kernels
