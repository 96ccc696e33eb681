// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/rows.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "server/kernels/sequences.h"
#include "tests/reference/ssm.h"

namespace limpid::reference {
namespace {

// [channels, rows, L].
std::vector<double> Entries(kernels::SsmAttention<double> attention) {
  std::vector<double> entries(
      (attention.channel_end - attention.channel_begin) *
      (attention.row_end - attention.row_begin) * attention.ssm.num_positions);
  attention.out = entries.data();
  Run(attention);
  return entries;
}

// Folds the entries, and multiplies them with the value.
template <typename Op>
void FoldAndMultiply(const Op& op) {
  const kernels::SsmAttention<double>& attention = op.attention;
  const int64_t length = attention.ssm.num_positions;
  const int64_t rows = attention.row_end - attention.row_begin;
  const int64_t begin = attention.channel_begin;
  const std::vector<double> entries = Entries(attention);
  Run(kernels::FoldChannels<double>{
      op.fold, attention.channel_end - begin, rows * length, entries.data(),
      op.weight == nullptr ? nullptr : op.weight + begin, op.accumulator,
      rows * length});
  if (op.product == nullptr) return;
  for (int64_t c = begin; c < attention.channel_end; ++c) {
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t j = 0; j < length; ++j) {
        sum += entries[((c - begin) * rows + r) * length + j] *
               op.value[j * op.value_stride + c];
      }
      op.product[r * attention.ssm.num_channels + c] = sum;
    }
  }
}

}  // namespace

void Run(const kernels::SsmAttentionFold<double>& op) { FoldAndMultiply(op); }

void Run(const kernels::JoinDirections<double>& op) {
  const int64_t length = op.ahead.attention.ssm.num_positions;
  const auto entries_of = [](const kernels::SsmAttentionFold<double>& fold,
                             int64_t sequence) {
    kernels::SsmAttention<double> attention = fold.attention;
    attention.ssm.delta += sequence * fold.sequence_strides.delta;
    attention.ssm.b += sequence * fold.sequence_strides.b;
    attention.ssm.c += sequence * fold.sequence_strides.c;
    attention.source_scale += sequence * fold.sequence_strides.source_scale;
    attention.row_scale += sequence * fold.sequence_strides.row_scale;
    return Entries(attention);
  };
  std::vector<double> ahead, back;
  for (int64_t row = op.row_begin; row < op.row_end; ++row) {
    const int64_t sequence = row / length, i = row % length;
    if (ahead.empty() || i == 0) {
      ahead = entries_of(op.ahead, sequence);
      back = entries_of(op.back, sequence);
    }
    const int64_t size = length * length;
    for (int64_t j = 0; j < length; ++j) {
      double& out = op.out[row * length + j];
      const int64_t at = i * length + j, turned = size - 1 - at;
      if (j < i) out = op.ahead.accumulator[sequence * size + at];
      if (j > i) out = op.back.accumulator[sequence * size + turned];
      if (j != i) continue;
      std::vector<double> diagonal;
      for (int64_t c = 0; c < op.ahead.attention.ssm.num_channels; ++c) {
        diagonal.push_back(ahead[c * size + at] + back[c * size + turned]);
      }
      const double infinity = INFINITY;
      out = op.ahead.fold == kernels::ChannelFold::kMax   ? -infinity
            : op.ahead.fold == kernels::ChannelFold::kMin ? infinity
                                                          : 0;
      Run(kernels::FoldChannels<double>{
          op.ahead.fold, static_cast<int64_t>(diagonal.size()), 1,
          diagonal.data(), op.ahead.weight, &out, 1});
    }
  }
}

void Run(const kernels::SsmRowsFold<double>& op) {
  FoldAndMultiply(op);
  if (op.product == nullptr || op.conv_bias == nullptr) return;
  const int64_t length = op.attention.ssm.num_positions;
  const int64_t rows = op.attention.row_end - op.attention.row_begin;
  kernels::SsmAttention<double> plain = op.attention;
  plain.conv_weight = nullptr;
  const std::vector<double> entries = Entries(plain);
  for (int64_t c = plain.channel_begin; c < plain.channel_end; ++c) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < length; ++j) {
        op.product[r * plain.ssm.num_channels + c] +=
            entries[((c - plain.channel_begin) * rows + r) * length + j] *
            op.conv_bias[c];
      }
    }
  }
}

void Run(const kernels::RowErrors<double>& op) {
  for (int64_t r = 0; r < op.num_rows; ++r) {
    double error = 0, size = 1e-30;
    for (int64_t c = 0; c < op.num_channels; ++c) {
      const double bias =
          op.bias == nullptr ? 0 : op.bias[r * op.bias_stride + c];
      const double output = op.output[r * op.output_stride + c];
      error = std::max(error, std::fabs(op.product[r * op.product_stride + c] +
                                        bias - output));
      size = std::max(size, std::fabs(output));
    }
    op.error[r] = error / size;
  }
}

void Run(const kernels::Wkv<double>& op) {
  for (int64_t b = 0; b < op.num_sequences; ++b) {
    const kernels::Span span = kernels::SpanOf(b, op.num_positions, op.begins);
    for (int64_t c = op.channel_begin; c < op.channel_end; ++c) {
      const auto at = [&](int64_t i) {
        return (span.begin + i) * op.num_channels + c;
      };
      double large = -INFINITY;  // of the positions before i
      for (int64_t i = 0; i < span.size(); ++i) {
        // Logarithms of the weights.
        std::vector<double> weights;
        for (int64_t j = 0; j < i; ++j) {
          weights.push_back(op.key[at(j)] +
                            static_cast<double>(i - 1 - j) * op.decay[c]);
        }
        weights.push_back(op.key[at(i)] + op.bonus[c]);
        const double top = *std::max_element(weights.begin(), weights.end());
        double sum = 0, average = 0;
        for (int64_t j = 0; j <= i; ++j) {
          sum += std::exp(weights[j] - top);
          average += std::exp(weights[j] - top) * op.value[at(j)];
        }
        average /= sum;
        if (op.gate_input != nullptr) {
          const double gate = 1 / (1 + std::exp(-op.gate_input[at(i)]));
          average *= gate;
          if (op.gate != nullptr) op.gate[at(i)] = gate;
        }
        op.out[at(i)] = average;
        const double next = std::max(large + op.decay[c], op.key[at(i)]);
        if (op.key_factor != nullptr) {
          op.key_factor[at(i)] = std::exp(op.key[at(i)] - next);
          op.decay_factor[at(i)] = std::exp(large + op.decay[c] - next);
          op.query[at(i)] = std::exp(large - top) / sum;
          op.diagonal[at(i)] = std::exp(weights.back() - top) / sum;
        }
        large = next;
      }
    }
  }
}

}  // namespace limpid::reference
