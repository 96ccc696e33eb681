// SPDX-License-Identifier: Apache-2.0
//
// Random recurrences with a matrix state for the kernel tests, with operands in
// every kind of layout that HeadOperand allows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/kernels/ops.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {

struct StateSizes {
  int64_t sequences = 1;
  int64_t positions = 1;
  int64_t heads = 1;
  int64_t key = 1;
  int64_t value = 1;

  int64_t AllHeads() const { return sequences * heads; }
  int64_t Rows() const { return sequences * positions * heads; }
  std::string ToString() const {
    return absl::StrCat("B=", sequences, " L=", positions, " H=", heads,
                        " N=", key, " P=", value);
  }
};

// Smallest sizes, typical ones, those that fill no register, and the largest.
inline constexpr StateSizes kStateShapes[] = {
    {1, 1, 1, 1, 1},    {2, 3, 2, 5, 3},    {1, 17, 20, 1, 1},
    {2, 33, 9, 1, 2},   {1, 40, 131, 1, 1}, {2, 31, 40, 2, 4},
    {1, 20, 8, 16, 4},  {1, 64, 3, 16, 16}, {1, 65, 2, 17, 33},
    {1, 96, 2, 64, 64}, {1, 257, 1, 4, 70}, {1, 50, 1, 70, 1},
    {3, 2, 8, 3, 5},    {1, 5, 1, 256, 256}};

enum class Strides {
  kContiguous,  // [B, L, H, n]
  kApart,       // the same, every third number, the others are not numbers
  kTurned,      // [B, L, n, H + 1]: heads side by side
  kShared,      // as far as an operand can be the same for many
};
inline constexpr Strides kStrides[] = {Strides::kContiguous, Strides::kApart,
                                       Strides::kTurned, Strides::kShared};

// What a recurrence may have, and of what size its numbers are.
struct StateOptions {
  bool rank_one = false;
  bool diagonal = false;
  Strides strides = Strides::kContiguous;
  double min_decay = 0.3;
  double max_decay = 1;
  uint64_t seed = 1;

  std::string ToString() const {
    return absl::StrCat(rank_one ? "left and right, " : "",
                        diagonal ? "diagonal, " : "", "strides ",
                        static_cast<int>(strides));
  }
};

// Numbers of an operand, and where they are.
template <typename T>
class Operand {
 public:
  Operand() = default;
  // `shared`: 'h' for a number per head, 'v' for a vector per position, 'w' for
  // a vector per head.
  Operand(const StateSizes& sizes, int64_t size, double low, double high,
          Strides strides, char shared, std::mt19937_64& g) {
    const int64_t b = sizes.sequences, l = sizes.positions, h = sizes.heads;
    int64_t count = b * l * h * size;
    switch (strides) {
      case Strides::kContiguous:
        layout_ = {nullptr, l * h * size, h * size, size, 1};
        break;
      case Strides::kApart:
        layout_ = {nullptr, 3 * l * h * size, 3 * h * size, 3 * size, 3};
        count *= 3;
        break;
      case Strides::kTurned:
        layout_ = {nullptr, l * size * (h + 1), size * (h + 1), 1, h + 1};
        count = b * l * size * (h + 1);
        break;
      case Strides::kShared:
        if (shared == 'h') layout_ = {nullptr, l * h, h, 1, 0};
        if (shared == 'v') layout_ = {nullptr, l * size, size, 0, 1};
        if (shared == 'w') layout_ = {nullptr, 0, 0, size, 1};
        break;
    }
    std::uniform_real_distribution<double> distribution(low, high);
    std::vector<double> values(count, std::nan(""));
    for (int64_t row = 0; row < sizes.Rows(); ++row) {
      for (int64_t n = 0; n < size; ++n) {
        values[(row / h / l) * layout_.sequence_stride +
               (row / h % l) * layout_.position_stride +
               (row % h) * layout_.head_stride + n * layout_.element_stride] =
            distribution(g);
      }
    }
    values_ = Values<T>(std::move(values));
    size_ = count;
  }

  HeadOperand<T> Get() const { return At<T>(values_.data()); }
  HeadOperand<double> Exact() const { return At<double>(values_.exact()); }
  // The same at another place.
  template <typename U>
  HeadOperand<U> At(const U* data) const {
    return {data, layout_.sequence_stride, layout_.position_stride,
            layout_.head_stride, layout_.element_stride};
  }
  const Values<T>& values() const { return values_; }
  int64_t size() const { return size_; }

 private:
  Values<T> values_;
  HeadOperand<T> layout_;
  int64_t size_ = 0;
};

template <typename T>
struct StateInputs {
  StateInputs(const StateSizes& sizes, const StateOptions& options)
      : sizes(sizes), options(options) {
    std::mt19937_64 g(options.seed);
    const Strides s = options.strides;
    const int64_t n = sizes.key;
    // Small enough for F to shrink most of what it is applied to.
    const double rank_one = 0.8 / std::sqrt(static_cast<double>(n));
    query = Operand<T>(sizes, n, -1, 1, s, 'v', g);
    key = Operand<T>(sizes, n, -1, 1, s, 'v', g);
    decay =
        Operand<T>(sizes, n, options.min_decay, options.max_decay, s, 'h', g);
    left = Operand<T>(sizes, n, -rank_one, rank_one, s, 'w', g);
    right = Operand<T>(sizes, n, -rank_one, rank_one, s, 'v', g);
    diagonal = Operand<T>(sizes, 1, -1, 1, s, 'w', g);
    value = Operand<T>(sizes, sizes.value, -1, 1, s, 'v', g);
    dout = Values<T>::Random(sizes.Rows() * sizes.value, -1, 1, g);
  }

  StateRecurrence<T> Recurrence() const {
    return Make<T>([](const Operand<T>& x) { return x.Get(); });
  }
  StateRecurrence<double> ExactRecurrence() const {
    return Make<double>([](const Operand<T>& x) { return x.Exact(); });
  }

  // All heads; outputs are left to the caller.
  StateScan<T> Scan() const { return MakeScan<T>(Recurrence(), value.Get()); }
  StateScan<double> ExactScan() const {
    return MakeScan<double>(ExactRecurrence(), value.Exact());
  }
  StateScanBackward<T> Backward() const {
    return MakeBackward<T>(Recurrence(), value.Get(), dout.data());
  }
  StateScanBackward<double> ExactBackward() const {
    return MakeBackward<double>(ExactRecurrence(), value.Exact(), dout.exact());
  }
  // All heads and rows of the last sequence.
  StateAttention<T> Attention() const { return MakeAttention<T>(Recurrence()); }
  StateAttention<double> ExactAttention() const {
    return MakeAttention<double>(ExactRecurrence());
  }

  StateSizes sizes;
  StateOptions options;
  Operand<T> query, key, decay, left, right, diagonal, value;
  Values<T> dout;

 private:
  template <typename U, typename Get>
  StateRecurrence<U> Make(const Get& get) const {
    StateRecurrence<U> r;
    r.num_sequences = sizes.sequences;
    r.num_positions = sizes.positions;
    r.num_heads = sizes.heads;
    r.key_size = sizes.key;
    r.query = get(query);
    r.key = get(key);
    r.decay = get(decay);
    if (options.rank_one) {
      r.left = get(left);
      r.right = get(right);
    }
    if (options.diagonal) r.diagonal = get(diagonal);
    return r;
  }
  template <typename U>
  StateScan<U> MakeScan(const StateRecurrence<U>& r,
                        const HeadOperand<U>& v) const {
    return {r, sizes.value, v, 0, sizes.AllHeads(), nullptr};
  }
  template <typename U>
  StateScanBackward<U> MakeBackward(const StateRecurrence<U>& r,
                                    const HeadOperand<U>& v,
                                    const U* gradient) const {
    StateScanBackward<U> op;
    op.recurrence = r;
    op.value_size = sizes.value;
    op.value = v;
    op.head_end = sizes.AllHeads();
    op.dout = gradient;
    return op;
  }
  template <typename U>
  StateAttention<U> MakeAttention(const StateRecurrence<U>& r) const {
    StateAttention<U> op;
    op.recurrence = r;
    op.sequence = sizes.sequences - 1;
    op.head_end = sizes.heads;
    op.row_end = sizes.positions;
    return op;
  }
};

// The scan of one sequence of kPackedPositions, cut into those that `begins`
// says.
template <typename T>
StateScan<T> Packed(StateScan<T> op, const int64_t* begins) {
  StateRecurrence<T>& r = op.recurrence;
  r.num_sequences = kPackedSequences;
  for (HeadOperand<T>* operand : {&r.query, &r.key, &r.decay, &r.left, &r.right,
                                  &r.diagonal, &op.value}) {
    operand->sequence_stride = 0;
  }
  op.head_end = kPackedSequences * r.num_heads;
  op.begins = begins;
  return op;
}

// One or more columns side by side, and heads.
inline constexpr StateSizes kPackedShapes[] = {{1, kPackedPositions, 19, 1, 1},
                                               {1, kPackedPositions, 9, 2, 4},
                                               {1, kPackedPositions, 3, 8, 20}};

// Gradients by all operands of all heads. Those that there are not stay as they
// are.
template <typename T>
struct StateGradients {
  explicit StateGradients(const StateSizes& sizes, T fill = T{-7})
      : dquery(sizes.Rows() * sizes.key, fill),
        dkey(dquery),
        ddecay(dquery),
        dleft(dquery),
        dright(dquery),
        ddiagonal(sizes.Rows(), fill),
        dvalue(sizes.Rows() * sizes.value, fill) {}
  void Point(StateScanBackward<T>& op) {
    op.dquery = dquery.data();
    op.dkey = dkey.data();
    op.ddecay = ddecay.data();
    op.dvalue = dvalue.data();
    if (op.recurrence.left.data != nullptr) {
      op.dleft = dleft.data();
      op.dright = dright.data();
    }
    if (op.recurrence.diagonal.data != nullptr) op.ddiagonal = ddiagonal.data();
  }

  std::vector<T> dquery, dkey, ddecay, dleft, dright, ddiagonal, dvalue;
};

struct ExpandSizes {
  int64_t positions = 1;
  int64_t heads = 1;
  int64_t channels_per_head = 1;
  int64_t conv_width = 4;

  int64_t Channels() const { return heads * channels_per_head; }
  std::string ToString() const {
    return absl::StrCat("L=", positions, " H=", heads, " P=", channels_per_head,
                        " K=", conv_width);
  }
};

// Matrices of heads, full ones, and factors of all channels.
template <typename T>
struct ExpandInputs {
  explicit ExpandInputs(const ExpandSizes& sizes)
      : sizes(sizes), stride(sizes.Channels() + 3) {
    std::mt19937_64 g(1);
    const int64_t l = sizes.positions, d = sizes.Channels();
    heads = Values<T>::Random(sizes.heads * l * l, -1, 1, g);
    skip = Values<T>::Random(d, -1, 1, g);
    source = Values<T>::Random(l * stride, -1, 1, g);
    conv_weight = Values<T>::Random(d * sizes.conv_width, -1, 1, g);
    row = Values<T>::Random(l * stride, -1, 1, g);
  }

  // All channels and rows. Bits of `missing`: no skip, no source_scale, no
  // convolution, no row_scale.
  ExpandHeads<T> Op(int missing) const {
    return Make<T>(missing, &Values<T>::data);
  }
  ExpandHeads<double> ExactOp(int missing) const {
    return Make<double>(missing, &Values<T>::exact);
  }

  ExpandSizes sizes;
  int64_t stride;
  Values<T> heads, skip, source, conv_weight, row;

 private:
  template <typename U, typename Get>
  ExpandHeads<U> Make(int missing, Get get) const {
    ExpandHeads<U> op;
    op.num_positions = sizes.positions;
    op.channels_per_head = sizes.channels_per_head;
    op.heads = (heads.*get)();
    if (!(missing & 1)) op.skip = (skip.*get)();
    if (!(missing & 2)) op.source_scale = (source.*get)();
    op.source_stride = stride;
    if (!(missing & 4)) op.conv_weight = (conv_weight.*get)();
    op.conv_width = sizes.conv_width;
    if (!(missing & 8)) op.row_scale = (row.*get)();
    op.row_stride = stride;
    op.channel_end = sizes.Channels();
    op.row_end = sizes.positions;
    return op;
  }
};

template <typename T>
inline constexpr std::pair<const char*, std::vector<T> StateGradients<T>::*>
    kStateGradients[] = {{"dquery", &StateGradients<T>::dquery},
                         {"dkey", &StateGradients<T>::dkey},
                         {"ddecay", &StateGradients<T>::ddecay},
                         {"dleft", &StateGradients<T>::dleft},
                         {"dright", &StateGradients<T>::dright},
                         {"ddiagonal", &StateGradients<T>::ddiagonal},
                         {"dvalue", &StateGradients<T>::dvalue}};

// Calls test(options) for all combinations of options.
template <typename Test>
void ForEachStateOption(const Test& test) {
  for (const Strides strides : kStrides) {
    for (int present = 0; present < 4; ++present) {
      StateOptions options;
      options.rank_one = present & 1;
      options.diagonal = present & 2;
      options.strides = strides;
      SCOPED_TRACE(options.ToString());
      test(options);
    }
  }
}

}  // namespace limpid::kernels
