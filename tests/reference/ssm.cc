// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/ssm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "server/kernels/sequences.h"

namespace limpid::reference {
namespace {

using kernels::SelectiveSsm;
using kernels::Span;
using kernels::SpanOf;

double Delta(const SelectiveSsm<double>& ssm, int64_t i, int64_t c) {
  return ssm.delta[i * ssm.delta_stride + c];
}
double A(const SelectiveSsm<double>& ssm, int64_t c, int64_t n) {
  return ssm.a[c * ssm.state_size + n];
}
double B(const SelectiveSsm<double>& ssm, int64_t i, int64_t n) {
  return ssm.b[i * ssm.b_stride + n];
}
double C(const SelectiveSsm<double>& ssm, int64_t i, int64_t n) {
  return ssm.c[i * ssm.c_stride + n];
}
double Skip(const SelectiveSsm<double>& ssm, int64_t c) {
  return ssm.skip == nullptr ? 0 : ssm.skip[c];
}

// S[i, j] of channel c.
double StateAttention(const SelectiveSsm<double>& ssm, int64_t c, int64_t i,
                      int64_t j) {
  double sum_delta = 0;
  for (int64_t m = j + 1; m <= i; ++m) sum_delta += Delta(ssm, m, c);
  double sum = 0;
  for (int64_t n = 0; n < ssm.state_size; ++n) {
    sum += C(ssm, i, n) * std::exp(A(ssm, c, n) * sum_delta) *
           Delta(ssm, j, c) * B(ssm, j, n);
  }
  return sum;
}

}  // namespace

void Run(const kernels::SelectiveScan<double>& op) {
  const SelectiveSsm<double>& ssm = op.ssm;
  for (int64_t b = 0; b < op.num_sequences; ++b) {
    const Span span = SpanOf(b, ssm.num_positions, op.begins);
    for (int64_t c = op.channel_begin; c < op.channel_end; ++c) {
      std::vector<double> s(ssm.state_size, 0.0);
      for (int64_t i = span.begin; i < span.end; ++i) {
        const double u = op.u[i * op.u_stride + c];
        double y = Skip(ssm, c) * u;
        for (int64_t n = 0; n < ssm.state_size; ++n) {
          s[n] = std::exp(Delta(ssm, i, c) * A(ssm, c, n)) * s[n] +
                 Delta(ssm, i, c) * B(ssm, i, n) * u;
          y += C(ssm, i, n) * s[n];
        }
        const int64_t at = op.reversed ? span.begin + span.end - 1 - i : i;
        if (op.added != nullptr) y += op.added[at * op.y_stride + c];
        y *= op.scale;
        if (op.gate_input != nullptr) {
          const double z = op.gate_input[at * op.gate_input_stride + c];
          const double gate = z / (1 + std::exp(-z));
          y *= gate;
          if (op.gate != nullptr) op.gate[at * ssm.num_channels + c] = gate;
        }
        op.y[at * op.y_stride + c] = y;
      }
    }
  }
}

void Run(const kernels::SelectiveScanBackward<double>& op) {
  const SelectiveSsm<double>& ssm = op.ssm;
  const int64_t length = ssm.num_positions;
  const int64_t num_states = ssm.state_size;
  for (int64_t c = op.channel_begin; c < op.channel_end; ++c) {
    // states[i + 1] is the state after position i.
    std::vector<std::vector<double>> states(
        length + 1, std::vector<double>(num_states, 0.0));
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t n = 0; n < num_states; ++n) {
        states[i + 1][n] =
            std::exp(Delta(ssm, i, c) * A(ssm, c, n)) * states[i][n] +
            Delta(ssm, i, c) * B(ssm, i, n) * op.u[i * op.u_stride + c];
      }
    }
    std::vector<double> adjoint(num_states, 0.0);  // of the state after i
    for (int64_t i = length - 1; i >= 0; --i) {
      const double delta = Delta(ssm, i, c);
      const double u = op.u[i * op.u_stride + c];
      const double dy = op.dy[i * op.dy_stride + c];
      double du = Skip(ssm, c) * dy;
      double ddelta = 0;
      for (int64_t n = 0; n < num_states; ++n) {
        const double decay = std::exp(delta * A(ssm, c, n));
        adjoint[n] += dy * C(ssm, i, n);
        op.dc[i * num_states + n] += dy * states[i + 1][n];
        op.db[i * num_states + n] += adjoint[n] * delta * u;
        du += adjoint[n] * delta * B(ssm, i, n);
        ddelta += adjoint[n] *
                  (B(ssm, i, n) * u + A(ssm, c, n) * decay * states[i][n]);
        adjoint[n] *= decay;
      }
      op.du[i * ssm.num_channels + c] = du;
      op.ddelta[i * ssm.num_channels + c] = ddelta;
    }
  }
}

void Run(const kernels::CausalConv1d<double>& op) {
  for (int64_t b = 0; b < op.num_sequences; ++b) {
    const Span span = SpanOf(b, op.num_positions, op.begins);
    for (int64_t i = 0; i < span.size(); ++i) {
      for (int64_t c = 0; c < op.num_channels; ++c) {
        double sum = op.bias == nullptr ? 0 : op.bias[c];
        for (int64_t k = 0; k < op.width; ++k) {
          const int64_t j = i - (op.width - 1) + k;
          if (j < 0) continue;
          const int64_t at = op.reversed ? span.end - 1 - j : span.begin + j;
          sum += op.weight[c * op.width + k] * op.x[at * op.x_stride + c];
        }
        const int64_t at = (span.begin + i) * op.out_stride + c;
        const double ratio = 1 / (1 + std::exp(-sum));
        if (op.out != nullptr) op.out[at] = sum;
        if (op.ratio != nullptr) op.ratio[at] = ratio;
        if (op.activated != nullptr) op.activated[at] = ratio * sum;
      }
    }
  }
}

void Run(const kernels::SsmAttention<double>& op) {
  const SelectiveSsm<double>& ssm = op.ssm;
  const int64_t length = ssm.num_positions;
  double* out = op.out;
  for (int64_t c = op.channel_begin; c < op.channel_end; ++c) {
    for (int64_t i = op.row_begin; i < op.row_end; ++i) {
      std::vector<double> row(length, 0.0);
      for (int64_t j = 0; j <= i; ++j) {
        row[j] = StateAttention(ssm, c, i, j);
        if (i == j) row[j] += Skip(ssm, c);
        if (op.source_scale != nullptr) {
          row[j] *= op.source_scale[j * op.source_stride + c];
        }
      }
      // The row times M, entry by entry.
      for (int64_t j = 0; j < length; ++j) {
        double entry = op.conv_weight == nullptr ? row[j] : 0;
        if (op.conv_weight != nullptr) {
          for (int64_t m = j; m < length && m - j < op.conv_width; ++m) {
            entry +=
                row[m] *
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

void Run(const kernels::FoldChannels<double>& op) {
  using kernels::ChannelFold;
  for (int64_t c = 0; c < op.num_channels; ++c) {
    for (int64_t e = 0; e < op.num_entries; ++e) {
      const double x = op.slab[c * op.slab_stride + e];
      double& sum = op.accumulator[e];
      switch (op.fold) {
        case ChannelFold::kSum:
          sum += x;
          break;
        case ChannelFold::kSumAbs:
          sum += std::fabs(x);
          break;
        case ChannelFold::kSumPositive:
          sum += std::max(x, 0.0);
          break;
        case ChannelFold::kSumSquares:
          sum += x * x;
          break;
        case ChannelFold::kMax:
          sum = std::max(sum, x);
          break;
        case ChannelFold::kMin:
          sum = std::min(sum, x);
          break;
        case ChannelFold::kWeightedSumAbs:
          sum += op.weight[c] * std::fabs(x);
          break;
      }
    }
  }
}

}  // namespace limpid::reference
