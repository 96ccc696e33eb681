// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/state.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace limpid::reference {
namespace {

using kernels::HeadOperand;
using kernels::StateRecurrence;
using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;

double At(const HeadOperand<double>& x, int64_t b, int64_t i, int64_t h,
          int64_t n) {
  return x.data[b * x.sequence_stride + i * x.position_stride +
                h * x.head_stride + n * x.element_stride];
}

Vector VectorAt(const HeadOperand<double>& x, int64_t b, int64_t i, int64_t h,
                int64_t size) {
  Vector result(size);
  for (int64_t n = 0; n < size; ++n) result[n] = At(x, b, i, h, n);
  return result;
}

bool HasRankOne(const StateRecurrence<double>& r) {
  return r.left.data != nullptr;
}
bool HasDiagonal(const StateRecurrence<double>& r) {
  return r.diagonal.data != nullptr;
}

Matrix Zeros(int64_t rows, int64_t columns) {
  return Matrix(rows, Vector(columns, 0.0));
}

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t n = 0; n < a.size(); ++n) sum += a[n] * b[n];
  return sum;
}

// m x
Vector Times(const Matrix& m, const Vector& x) {
  Vector result(m.size());
  for (size_t n = 0; n < m.size(); ++n) result[n] = Dot(m[n], x);
  return result;
}

// m^T x
Vector TransposedTimes(const Matrix& m, const Vector& x) {
  Vector result(m[0].size(), 0.0);
  for (size_t n = 0; n < m.size(); ++n) {
    for (size_t p = 0; p < result.size(); ++p) result[p] += m[n][p] * x[n];
  }
  return result;
}

void AddOuter(Matrix& m, const Vector& a, const Vector& b) {
  for (size_t n = 0; n < a.size(); ++n) {
    for (size_t p = 0; p < b.size(); ++p) m[n][p] += a[n] * b[p];
  }
}

// m = diag(decay) m + left (right^T m), left and right may be empty.
void Transition(Matrix& m, const Vector& decay, const Vector& left,
                const Vector& right) {
  Vector projected;
  if (!left.empty()) projected = TransposedTimes(m, right);
  for (size_t n = 0; n < m.size(); ++n) {
    for (double& x : m[n]) x *= decay[n];
  }
  if (!left.empty()) AddOuter(m, left, projected);
}

// The operands of one position of one head.
struct Position {
  Position(const StateRecurrence<double>& r, int64_t b, int64_t i, int64_t h)
      : query(VectorAt(r.query, b, i, h, r.key_size)),
        key(VectorAt(r.key, b, i, h, r.key_size)),
        decay(VectorAt(r.decay, b, i, h, r.key_size)) {
    if (HasRankOne(r)) {
      left = VectorAt(r.left, b, i, h, r.key_size);
      right = VectorAt(r.right, b, i, h, r.key_size);
    }
    if (HasDiagonal(r)) diagonal = At(r.diagonal, b, i, h, 0);
  }
  Vector query, key, decay, left, right;
  double diagonal = 0;
};

void Set(double* out, int64_t at, const Vector& values) {
  if (out == nullptr) return;
  for (size_t n = 0; n < values.size(); ++n) {
    out[at * static_cast<int64_t>(values.size()) + n] = values[n];
  }
}

}  // namespace

void Run(const kernels::StateScan<double>& op) {
  const StateRecurrence<double>& r = op.recurrence;
  for (int64_t head = op.head_begin; head < op.head_end; ++head) {
    const int64_t b = head / r.num_heads;
    const int64_t h = head % r.num_heads;
    Matrix state = Zeros(r.key_size, op.value_size);
    const bool packed = op.begins != nullptr;
    const int64_t end = packed ? op.begins[b + 1] : r.num_positions;
    for (int64_t i = packed ? op.begins[b] : 0; i < end; ++i) {
      const Position x(r, b, i, h);
      const Vector value = VectorAt(op.value, b, i, h, op.value_size);
      Vector out = TransposedTimes(state, x.query);
      Transition(state, x.decay, x.left, x.right);
      AddOuter(state, x.key, value);
      if (HasDiagonal(r)) {
        for (int64_t p = 0; p < op.value_size; ++p) {
          out[p] += x.diagonal * value[p];
        }
      } else {
        out = TransposedTimes(state, x.query);
      }
      const int64_t row = packed ? i : b * r.num_positions + i;
      Set(op.out, row * r.num_heads + h, out);
    }
  }
}

void Run(const kernels::StateScanBackward<double>& op) {
  const StateRecurrence<double>& r = op.recurrence;
  const int64_t length = r.num_positions;
  for (int64_t head = op.head_begin; head < op.head_end; ++head) {
    const int64_t b = head / r.num_heads;
    const int64_t h = head % r.num_heads;
    // states[i] is the state before position i.
    std::vector<Matrix> states(length + 1, Zeros(r.key_size, op.value_size));
    for (int64_t i = 0; i < length; ++i) {
      const Position x(r, b, i, h);
      states[i + 1] = states[i];
      Transition(states[i + 1], x.decay, x.left, x.right);
      AddOuter(states[i + 1], x.key,
               VectorAt(op.value, b, i, h, op.value_size));
    }
    Matrix adjoint = Zeros(r.key_size, op.value_size);
    for (int64_t i = length - 1; i >= 0; --i) {
      const Position x(r, b, i, h);
      const int64_t at = (b * length + i) * r.num_heads + h;
      const Vector value = VectorAt(op.value, b, i, h, op.value_size);
      const Vector dout(op.dout + at * op.value_size,
                        op.dout + (at + 1) * op.value_size);
      // The output comes from the state before the position with `diagonal`,
      // and from that after it without.
      const bool after = !HasDiagonal(r);
      if (after) AddOuter(adjoint, x.query, dout);
      Set(op.dquery, at, Times(states[after ? i + 1 : i], dout));
      Vector dvalue = TransposedTimes(adjoint, x.key);
      if (HasDiagonal(r)) {
        for (int64_t p = 0; p < op.value_size; ++p) {
          dvalue[p] += x.diagonal * dout[p];
        }
        Set(op.ddiagonal, at, {Dot(dout, value)});
      }
      Set(op.dvalue, at, dvalue);
      Set(op.dkey, at, Times(adjoint, value));
      Vector ddecay(r.key_size);
      for (int64_t n = 0; n < r.key_size; ++n) {
        ddecay[n] = Dot(adjoint[n], states[i][n]);
      }
      Set(op.ddecay, at, ddecay);
      if (HasRankOne(r)) {
        Set(op.dleft, at, Times(adjoint, TransposedTimes(states[i], x.right)));
        Set(op.dright, at, Times(states[i], TransposedTimes(adjoint, x.left)));
      }
      Transition(adjoint, x.decay, x.right, x.left);
      if (!after) AddOuter(adjoint, x.query, dout);
    }
  }
}

void Run(const kernels::StateAttention<double>& op) {
  const StateRecurrence<double>& r = op.recurrence;
  const int64_t length = r.num_positions;
  const int64_t num_rows = op.row_end - op.row_begin;
  for (int64_t h = op.head_begin; h < op.head_end; ++h) {
    double* out = op.out + (h - op.head_begin) * num_rows * length;
    std::fill_n(out, num_rows * length, 0.0);
    std::vector<Position> positions;
    for (int64_t i = 0; i < op.row_end; ++i) {
      positions.emplace_back(r, op.sequence, i, h);
    }
    for (int64_t j = 0; j < op.row_end; ++j) {
      Vector key = positions[j].key;  // F_i ... F_{j+1} key_j
      for (int64_t i = j; i < op.row_end; ++i) {
        const Position& x = positions[i];
        const double before = i > j ? Dot(x.query, key) : x.diagonal;
        if (i > j) {
          const double projected = HasRankOne(r) ? Dot(x.right, key) : 0;
          for (int64_t n = 0; n < r.key_size; ++n) {
            key[n] *= x.decay[n];
            if (HasRankOne(r)) key[n] += x.left[n] * projected;
          }
        }
        if (i >= op.row_begin) {
          out[(i - op.row_begin) * length + j] =
              HasDiagonal(r) ? before : Dot(x.query, key);
        }
      }
    }
  }
}

void Run(const kernels::ExpandHeads<double>& op) {
  const int64_t length = op.num_positions;
  const int64_t num_rows = op.row_end - op.row_begin;
  double* out = op.out;
  for (int64_t c = op.channel_begin; c < op.channel_end; ++c) {
    const int64_t head = c / op.channels_per_head - op.head_begin;
    for (int64_t i = op.row_begin; i < op.row_end; ++i) {
      const double* row =
          op.heads + (head * num_rows + i - op.row_begin) * length;
      Vector scaled(row, row + length);
      if (op.skip != nullptr) scaled[i] += op.skip[c];
      if (op.source_scale != nullptr) {
        for (int64_t j = 0; j < length; ++j) {
          scaled[j] *= op.source_scale[j * op.source_stride + c];
        }
      }
      for (int64_t j = 0; j < length; ++j) {
        double entry = op.conv_weight == nullptr ? scaled[j] : 0;
        if (op.conv_weight != nullptr) {
          for (int64_t m = j; m < length && m - j < op.conv_width; ++m) {
            entry +=
                scaled[m] *
                op.conv_weight[c * op.conv_width + op.conv_width - 1 - (m - j)];
          }
        }
        if (op.row_scale != nullptr) {
          entry *= op.row_scale[i * op.row_stride + c];
        }
        *out++ = entry;
      }
    }
  }
}

}  // namespace limpid::reference
