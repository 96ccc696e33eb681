// SPDX-License-Identifier: Apache-2.0
//
// What one warp makes of one channel at the diagonal: entries between the rows
// and the columns of a span, kSpan rows of a block. See ssm_fold_diagonal.cu.
//
// The span is cut into eights, groups of 8 rows. First lane 4 m + t has eight m
// and states 4t to 4t + 3, and walks down its rows; every column of the eight
// is a state there, which decays from row to row. At the eight's end columns
// are keys, and above that rows and columns are factors of products on tensor
// cores: the square below the diagonal of 16, 32 and 64 rows each.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "server/kernels/cuda/fold.h"
#include "server/kernels/cuda/mma.h"
#include "server/kernels/cuda/ssm_fold.h"
#include "server/kernels/cuda/ssm_fold_fragments.h"
#include "server/kernels/cuda/warp.h"
#include "server/kernels/ops.h"

namespace limpid::kernels::cuda {

inline constexpr int kSpan = 64;
inline constexpr int kEight = 8;
inline constexpr int kEights = kSpan / kEight;

// Arrays over positions have a place more after every eight, so that places 8
// apart are in different banks. Where position k after an eight's begin is:
__host__ __device__ constexpr int Padded(int eight, int k) {
  return eight * (kEight + 1) + k + k / kEight;
}
__host__ __device__ constexpr int Padded(int x) {
  return Padded(x / kEight, x % kEight);
}

// Position x of an array of kDiagonal is position x - kShift of the block;
// those outside of the sequence are zeros.
struct Position {
  float delta, source, row_scale, value;
};
struct alignas(16) ChannelInputs {
  float4 positions[Padded(kDiagonal)];
  // As in ColumnFactors.
  float rate[kFoldStates];
  float taps[kTaps];
  float unit, skip, weight, conv_bias;

  __device__ Position At(int eight, int k) const {
    const float4 all = positions[Padded(eight, k)];
    return {all.x, all.y, all.z, all.w};
  }
  __device__ float Value(int eight, int k) const {
    return positions[Padded(eight, k)].w;
  }
  // Of row k of an eight.
  __device__ float RowScale(int eight, int k) const {
    return positions[Padded(eight, k + kShift)].z;
  }
};

// b and c of all positions of a block, which its channels share: lane t of a
// fragment has quad t.
struct alignas(16) BlockStates {
  float4 b[Padded(kDiagonal)][4];
  float4 c[Padded(kTile)][4];
};

// Keys of the columns of an eight as halves, see ColumnFactors, and room that
// puts them into different banks.
struct alignas(16) EightHalves {
  uint4 keys[4][kEight];
  uint4 unused;
};

// A warp's own.
struct alignas(16) SpanMemory {
  union {
    // Keys at the ends of their eights, and room for the banks' sake.
    float4 keys[kEights][kEight + 1][4];
    EightHalves halves[kEights];
  };
  float4 through[kEights][4];  // decays through an eight
  // What the convolution's bias has put into the states at an eight's end, of
  // its rows alone.
  float4 of_bias[kEights][4];
  // Sums of delta: from an eight's begin up to a row, and up to that begin.
  float sums[kSpan];
  float before[kEights];
  float products[kSpan];  // that triangles give to a row
};

// What the upper span of a block gives to the square between it and the lower
// one, and the lower one's rows.
struct alignas(16) SquareInputs {
  EightHalves keys[kEights];  // at the upper span's end
  float4 of_bias[4];          // the bias's states there
  float sums[kSpan];          // of delta from there up to the row
  float products[kSpan];      // of the lower span's rows so far
};

__device__ inline void Scale(float (&x)[4], const float4& by) {
  x[0] *= by.x, x[1] *= by.y, x[2] *= by.z, x[3] *= by.w;
}
__device__ inline float4 Times(const float4& a, const float4& b) {
  return {a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w};
}

__device__ inline float Dot(const float (&a)[4], const float (&b)[4]) {
  return fmaf(a[3], b[3], fmaf(a[2], b[2], fmaf(a[1], b[1], a[0] * b[0])));
}
__device__ inline float Dot(const float (&a)[4], const float4& b) {
  return fmaf(a[3], b.w, fmaf(a[2], b.z, fmaf(a[1], b.y, a[0] * b.x)));
}

// Entries of an eight in the order in which they are made: row by row, columns
// up to the row, and the kShift columns behind it that have not met all taps.
inline constexpr int kEntriesOfEight =
    kEight * (kEight + 1) / 2 + kEight * kShift;
inline constexpr int kEntriesOfLane = kEntriesOfEight / 4;
static_assert(kEntriesOfEight % 4 == 0);
struct PlaceInEight {
  int row, column;
};
__device__ inline PlaceInEight PlaceOfEntry(int entry) {
  int row = 0;
  while (entry >= row + 1 + kShift) entry -= ++row + kShift;
  return {row, entry};
}

// Sums over channels of what a warp makes: lane t of a quad has every fourth
// entry of an eight; squares as fragments.
struct SpanSums {
  float eights[kEntriesOfLane];
  float of_16[4][2];     // rows 8 to 15 of 16 by columns 0 to 7
  float of_32[2][2][4];  // rows 16 to 31 of 32 by columns 0 to 15
  float of_64[2][4][4];  // rows 32 to 63 by columns 0 to 31

  // Calls visit(number, row, column, is_scaled), all of the span.
  template <typename Visit>
  __device__ void ForEach(int lane, const Visit& visit) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < kEntriesOfLane; ++k) {
      const PlaceInEight place = PlaceOfEntry(4 * k + t);
      visit(eights[k], g * kEight + place.row, g * kEight + place.column,
            false);
    }
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        visit(of_16[m][e], 16 * m + 8 + g, 16 * m + 2 * t + e, true);
      }
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = g + e / 2 * 8, column = 2 * t + e % 2;
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int x = 0; x < 2; ++x) {
          visit(of_32[m][x][e], 32 * m + 16 + row, 32 * m + 8 * x + column,
                true);
        }
#pragma unroll
        for (int x = 0; x < 4; ++x) {
          visit(of_64[m][x][e], 32 + 16 * m + row, 8 * x + column, true);
        }
      }
    }
  }
};

// A quad of lanes on the rows and columns of an eight of one channel: lane t
// has states 4t to 4t + 3.
template <ChannelFold kFold, bool kProducts>
struct EightWalk {
  float rate[4];          // of the lane's states
  float keys[kEight][4];  // of columns at the eight's end, in units of keys
  float sum;              // of delta

  // Adds the entries of the triangle and of the columns behind it to `entries`,
  // and sets the quad's sums, products and of_bias in `memory`. All lanes of a
  // warp at once.
  __device__ __forceinline__ void Down(const BlockStates& states,
                                       const ChannelInputs& in, int eight,
                                       SpanMemory& memory,
                                       float (&entries)[kEntriesOfLane]) {
    const int m = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const float4 rates = reinterpret_cast<const float4*>(in.rate)[t];
    rate[0] = rates.x, rate[1] = rates.y;
    rate[2] = rates.z, rate[3] = rates.w;
    float taps[kTaps];
#pragma unroll
    for (int d = 0; d < kTaps; ++d) taps[d] = in.taps[d];
    const float to_key = 1 / in.unit;
    // Counted once in a quad.
    const float skip = t == 0 ? in.skip : 0.0f;

    // Columns that have met one, two and three taps.
    float one[4] = {}, two[4] = {}, three[4] = {};
    float values[kEight + kShift];
    float pending[4];
    float row_products[4];
    float of_bias[4] = {};
    int num_made = 0;
    const auto add = [&](float entry, float value, float& product) {
      if (kProducts) product = fmaf(entry, value, product);
      pending[num_made % 4] = entry;
      if (++num_made % 4 != 0) return;
      float& folded = entries[num_made / 4 - 1];
      folded = Folded<kFold>(folded, SumOfQuad(pending, t), in.weight);
    };
#pragma unroll
    for (int k = 0; k < kEight + kShift; ++k) values[k] = 0;
    if (kProducts) {
#pragma unroll
      for (int k = 0; k < kEight + kShift; ++k) {
        values[k] = in.Value(eight, k);
      }
    }
    sum = 0;
#pragma unroll
    for (int k = 0; k < kEight + kShift; ++k) {
      const Position position = in.At(eight, k);
      const float4 b = states.b[Padded(eight, k)][t];
      const float input = position.delta * position.source * to_key;
      const float key[4] = {b.x * input, b.y * input, b.z * input, b.w * input};
      float decay[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        decay[n] = ExpOfLog2(rate[n] * position.delta);
      }
      const int i = k - kShift;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        if (i >= 0) {
          keys[i >= 0 ? i : 0][n] = fmaf(three[n], decay[n], taps[3] * key[n]);
        }
        if (k >= 2) three[n] = fmaf(two[n], decay[n], taps[2] * key[n]);
        if (k >= 1) two[n] = fmaf(one[n], decay[n], taps[1] * key[n]);
        one[n] = taps[0] * key[n];
      }
      if (i < 0) continue;
#pragma unroll
      for (int j = 0; j < i; ++j) {
#pragma unroll
        for (int n = 0; n < 4; ++n) keys[j][n] *= decay[n];
      }
      sum += position.delta;
      if (i % 4 == t) memory.sums[kEight * m + i] = sum;
      const float4 c = states.c[Padded(eight, i)][t];
      const float whole = position.row_scale * in.unit;
      const float query[4] = {c.x * whole, c.y * whole, c.z * whole,
                              c.w * whole};
      const float past = position.row_scale * position.source * skip;
      float product = 0;
      if constexpr (kProducts) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          of_bias[n] = fmaf(of_bias[n], decay[n], key[n]);
        }
        product = (Dot(query, of_bias) + past) * in.conv_bias;
      }
#pragma unroll
      for (int j = 0; j < i; ++j) {
        add(Dot(query, keys[j]), values[j], product);
      }
      add(fmaf(taps[3], past, Dot(query, keys[i])), values[i], product);
      add(fmaf(taps[2], past, Dot(query, three)), values[i + 1], product);
      add(fmaf(taps[1], past, Dot(query, two)), values[i + 2], product);
      add(fmaf(taps[0], past, Dot(query, one)), values[i + 3], product);
      row_products[i % 4] = product;
      if (kProducts && i % 4 == 3) {
        memory.products[kEight * m + i - 3 + t] = SumOfQuad(row_products, t);
      }
    }
    if constexpr (kProducts) {
      const float bias = in.conv_bias;
      memory.of_bias[m][t] = {of_bias[0] * bias, of_bias[1] * bias,
                              of_bias[2] * bias, of_bias[3] * bias};
    }
  }

  // Calls visit(column, key) with the keys of the eight after `delta` more.
  template <typename Visit>
  __device__ __forceinline__ void ForEachKeyAfter(float delta,
                                                  const Visit& visit) const {
    float decay[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) decay[n] = ExpOfLog2(rate[n] * delta);
#pragma unroll
    for (int j = 0; j < kEight; ++j) {
      float key[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) key[n] = keys[j][n] * decay[n];
      visit(j, key);
    }
  }
};

// The work of one warp on one channel.
template <ChannelFold kFold, bool kProducts>
class SpanWork {
 public:
  // `first` is the span's first row in the block; `scale` that of entries of
  // squares, S.
  __device__ SpanWork(const BlockStates& states, const ChannelInputs& in,
                      int first, float scale, SpanMemory& memory,
                      SpanSums& sums)
      : states_(states),
        in_(in),
        first_(first),
        first_eight_(first / kEight),
        scale_(scale),
        lane_(threadIdx.x % 32),
        memory_(memory),
        sums_(sums) {}

  // Everything; sets the rows of `factors`, and the columns if there are blocks
  // behind. `square` is that of the channel. Products of the upper span's rows
  // go to `products`, those of the lower one's to the square.
  __device__ __forceinline__ void Run(bool has_columns, BlockFactors& factors,
                                      SquareInputs& square, float* products) {
    const bool is_lower = first_ > 0;
    // The warp's lanes are done with the channel before.
    __syncwarp();
    const int m = lane_ / 4, t = lane_ % 4;
    walk_.Down(states_, in_, first_eight_ + m, memory_, sums_.eights);
    // Sums of delta of the eights before, of those behind, and of the other
    // span.
    const float through = walk_.sum;
    float before = through, behind = through;
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) {
      const float left = __shfl_up_sync(kAllLanes, before, offset);
      const float right = __shfl_down_sync(kAllLanes, behind, offset);
      if (lane_ >= offset) before += left;
      if (lane_ + offset < 32) behind += right;
    }
    before = __shfl_up_sync(kAllLanes, before, 4);
    behind = __shfl_down_sync(kAllLanes, behind, 4);
    if (lane_ < 4) before = 0;
    if (lane_ >= 28) behind = 0;
    float sum_of_other = 0;
    if (is_lower || has_columns) {
#pragma unroll
      for (int k = 0; k < kSpan; k += 32) {
        const int row = kSpan - first_ + k + lane_;
        sum_of_other += in_.At(0, row + kShift).delta;
      }
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) {
        sum_of_other += __shfl_xor_sync(kAllLanes, sum_of_other, offset);
      }
    }

    if (!is_lower) {
      walk_.ForEachKeyAfter(behind, [&](int j, const float(&key)[4]) {
        StoreHalves(key, t, j, square.keys[m].keys);
      });
      behind += sum_of_other;
    }
    if (has_columns) MakeColumns(behind, is_lower, factors.columns);
    if (t == 0) memory_.before[m] = before;
    memory_.through[m][t] = {
        ExpOfLog2(walk_.rate[0] * through), ExpOfLog2(walk_.rate[1] * through),
        ExpOfLog2(walk_.rate[2] * through), ExpOfLog2(walk_.rate[3] * through)};
    __syncwarp();
#pragma unroll
    for (int row = lane_; row < kSpan; row += 32) {
      const float sum = memory_.before[row / kEight] + memory_.sums[row];
      factors.rows.rows[first_ + row] = {(is_lower ? sum_of_other : 0.0f) + sum,
                                         in_.RowScale(first_eight_, row)};
      if (is_lower) square.sums[row] = sum;
    }
#pragma unroll
    for (int j = 0; j < kEight; ++j) {
      memory_.keys[m][j][t] = {walk_.keys[j][0], walk_.keys[j][1],
                               walk_.keys[j][2], walk_.keys[j][3]};
    }
    __syncwarp();
    Multiply(square, is_lower ? square.products : products);
  }

 private:
  // Columns for the tiles, and what they give with values, after `behind` of
  // delta.
  __device__ __forceinline__ void MakeColumns(float behind, bool is_lower,
                                              ColumnFactors& columns) {
    const int m = lane_ / 4, t = lane_ % 4;
    float value_keys[4] = {};
    if constexpr (kProducts) {
      // Beside the bias's.
      const float4 own = memory_.of_bias[m][t];
      value_keys[0] = own.x * ExpOfLog2(walk_.rate[0] * behind);
      value_keys[1] = own.y * ExpOfLog2(walk_.rate[1] * behind);
      value_keys[2] = own.z * ExpOfLog2(walk_.rate[2] * behind);
      value_keys[3] = own.w * ExpOfLog2(walk_.rate[3] * behind);
    }
    walk_.ForEachKeyAfter(behind, [&](int j, const float(&key)[4]) {
      StoreHalves(key, t, j, memory_.halves[m].keys);
      if constexpr (kProducts) {
        const float value = in_.Value(first_eight_ + m, j);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          value_keys[n] = fmaf(key[n], value, value_keys[n]);
        }
      }
    });
    __syncwarp();
#pragma unroll
    for (int m = 0; m < kEights; ++m) {
      columns.keys[first_eight_ + m][lane_ / 8][lane_ % 8] =
          memory_.halves[m].keys[lane_ / 8][lane_ % 8];
    }
    if constexpr (kProducts) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2) {
          value_keys[n] += __shfl_xor_sync(kAllLanes, value_keys[n], offset);
        }
      }
      if (lane_ < 4) {
        columns.value_keys[is_lower][lane_] = {value_keys[0], value_keys[1],
                                               value_keys[2], value_keys[3]};
      }
    }
  }

  // Squares of 16, 32 and 64 rows, and products of all rows.
  __device__ __forceinline__ void Multiply(SquareInputs& square,
                                           float* to_products) {
    const int g = lane_ / 4, t = lane_ % 4;
    const float whole = in_.unit * scale_;
    // Of two rows 8 apart in each 16, from their eights' begin.
    Queries queries[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int eight = 2 * m + h;
        const float sum = memory_.sums[kEight * eight + g];
        const float scale = in_.RowScale(first_eight_ + eight, g) * whole;
        const float4 c = states_.c[Padded(first_eight_ + eight, g)][t];
        const float states[4] = {c.x, c.y, c.z, c.w};
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          queries[m].of[h][n] =
              states[n] * scale * ExpOfLog2(walk_.rate[n] * sum);
        }
      }
    }
    float products[2][4] = {};
    if constexpr (kProducts) {
      // The bias's states at an eight's begin, of the rows before.
      float4 state = {0, 0, 0, 0};
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
        products[eight % 2][eight / 2] =
            Dot(queries[eight / 2].of[eight % 2], state);
        const float4 own = memory_.of_bias[eight][t];
        const float4 decay = memory_.through[eight][t];
        state = {fmaf(state.x, decay.x, own.x), fmaf(state.y, decay.y, own.y),
                 fmaf(state.z, decay.z, own.z), fmaf(state.w, decay.w, own.w)};
      }
      if (first_ == 0 && g == 0) square.of_bias[t] = state;
    }
    const auto value_of = [&](int eight) -> float2 {
      if (!kProducts) return {0, 0};
      return {in_.Value(first_eight_ + eight, 2 * t),
              in_.Value(first_eight_ + eight, 2 * t + 1)};
    };
    const auto halves_of = [&](float4 key) -> uint4 {
      const HalfPairs first = Split(key.x, key.y), second = Split(key.z, key.w);
      return {first.high, second.high, first.low, second.low};
    };
    const auto key_of = [&](int eight) { return memory_.keys[eight][g][t]; };

#pragma unroll
    for (int m = 0; m < 4; ++m) {
      Queries own = queries[m];
#pragma unroll
      for (int n = 0; n < 4; ++n) own.of[0][n] = 0;
      float entries[4];
      MultiplyPairs(entries, own.Halves(), halves_of(key_of(2 * m)));
      const float2 value = value_of(2 * m);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& sum = sums_.of_16[m][e];
        sum = Folded<kFold>(sum, entries[2 + e], in_.weight);
      }
      if (kProducts) {
        products[1][m] = AddProducts(products[1][m], entries[2], value.x,
                                     entries[3], value.y);
      }
    }
    const auto add = [&](const LeftHalves& left, const uint4& key,
                         const float2& value, int m, float(&sums)[4]) {
      float entries[4];
      MultiplyPairs(entries, left, key);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[e] = Folded<kFold>(sums[e], entries[e], in_.weight);
      }
      if constexpr (kProducts) {
        products[0][m] = AddProducts(products[0][m], entries[0], value.x,
                                     entries[1], value.y);
        products[1][m] = AddProducts(products[1][m], entries[2], value.x,
                                     entries[3], value.y);
      }
    };
    const auto through = [&](int eight) { return memory_.through[eight][t]; };
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      // From here on the odd eights' rows have the even ones' decay, too.
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        if (k == 1 || m == 1) {
          Scale(queries[2 * m + k].of[1], through(4 * m + 2 * k));
        }
      }
      const LeftHalves left = queries[2 * m + 1].Halves();
      add(left, halves_of(Times(key_of(4 * m), through(4 * m + 1))),
          value_of(4 * m), 2 * m + 1, sums_.of_32[m][0]);
      add(left, halves_of(key_of(4 * m + 1)), value_of(4 * m + 1), 2 * m + 1,
          sums_.of_32[m][1]);
    }
    {
      const float4 rows = Times(through(4), through(5));
      Scale(queries[3].of[0], rows);
      Scale(queries[3].of[1], rows);
      const LeftHalves left[2] = {queries[2].Halves(), queries[3].Halves()};
      float4 later = {1, 1, 1, 1};
#pragma unroll
      for (int x = 3; x >= 0; --x) {
        const uint4 key = halves_of(Times(key_of(x), later));
        const float2 value = value_of(x);
        add(left[0], key, value, 2, sums_.of_64[0][x]);
        add(left[1], key, value, 3, sums_.of_64[1][x]);
        later = Times(later, through(x));
      }
    }
    if constexpr (kProducts) {
      const float unscale = 1 / scale_;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = 16 * t + 8 * h + g;
        to_products[row] =
            SumOfQuad(products[h], t) * unscale + memory_.products[row];
      }
    }
  }

  const BlockStates& states_;
  const ChannelInputs& in_;
  const int first_, first_eight_;
  const float scale_;
  const int lane_;
  SpanMemory& memory_;
  SpanSums& sums_;
  EightWalk<kFold, kProducts> walk_;
};

}  // namespace limpid::kernels::cuda
