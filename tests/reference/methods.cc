// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/methods.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace limpid::reference {
namespace {

Matrix Zeros(size_t rows, size_t columns) {
  return Matrix(rows, Vector(columns, 0.0));
}

Vector Unit(size_t size, int64_t place) {
  Vector out(size, 0.0);
  out[place] = 1;
  return out;
}

double Sum(const Vector& x) {
  double sum = 0;
  for (const double value : x) sum += value;
  return sum;
}

double Norm(const Vector& x, int64_t order) {
  double sum = 0;
  for (const double value : x) {
    sum += order == 1 ? std::abs(value) : value * value;
  }
  return order == 1 ? sum : std::sqrt(sum);
}

Matrix Product(const Matrix& a, const Matrix& b) {
  Matrix out = Zeros(a.size(), b[0].size());
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t k = 0; k < b.size(); ++k) {
      for (size_t j = 0; j < b[0].size(); ++j) out[i][j] += a[i][k] * b[k][j];
    }
  }
  return out;
}

// Row `position` of the product of the layers' matrices, later ones from the
// left.
Vector RowOfProduct(const std::vector<Matrix>& layers, size_t length,
                    int64_t position) {
  Matrix product;
  for (size_t i = 0; i < length; ++i) product.push_back(Unit(length, i));
  for (const Matrix& layer : layers) product = Product(layer, product);
  return product[position];
}

// (A + w I) / (w + sum of the row)
Matrix WithResidual(Matrix attention, double weight) {
  for (size_t i = 0; i < attention.size(); ++i) {
    const double sum = weight + Sum(attention[i]);
    attention[i][i] += weight;
    for (double& entry : attention[i]) entry /= sum;
  }
  return attention;
}

void MinMax(Vector& x) {
  const double low = *std::min_element(x.begin(), x.end());
  const double high = *std::max_element(x.begin(), x.end());
  for (double& value : x) {
    value = high > low ? (value - low) / (high - low) : 0;
  }
}

double MaxRelu(const Vector& x) {
  return std::max(0.0, *std::max_element(x.begin(), x.end()));
}

size_t StartOf(const MethodOptions& options) {
  return static_cast<size_t>(options.start_layer.value_or(0));
}

// What position j adds to the stream of position i through the block, [E].
Vector Contribution(const Block& block, size_t i, size_t j) {
  Vector out(block.weight.size(), 0.0);
  for (size_t e = 0; e < out.size(); ++e) {
    for (size_t c = 0; c < block.alpha.size(); ++c) {
      double part = block.alpha[c][i][j] * block.value[j][c];
      if (i == j && !block.direct.empty()) part += block.direct[i][c];
      out[e] += block.weight[e][c] * part;
    }
  }
  return out;
}

Vector StreamAfter(const Block& block, size_t i) {
  Vector after = block.stream[i];
  for (size_t e = 0; e < after.size(); ++e) {
    for (size_t c = 0; c < block.alpha.size(); ++c) {
      after[e] += block.weight[e][c] * block.output[i][c];
    }
    if (!block.weight_bias.empty()) after[e] += block.weight_bias[e];
  }
  return after;
}

Matrix AltiShares(const Block& block) {
  const size_t length = block.stream.size();
  Matrix shares = Zeros(length, length);
  for (size_t i = 0; i < length; ++i) {
    const Vector after = StreamAfter(block, i);
    for (size_t j = 0; j < length; ++j) {
      Vector rest = after;
      const Vector part = Contribution(block, i, j);
      for (size_t e = 0; e < rest.size(); ++e) {
        rest[e] -= part[e] + (i == j ? block.stream[i][e] : 0);
      }
      shares[i][j] = std::max(0.0, Norm(after, 1) - Norm(rest, 1));
    }
    const double sum = Sum(shares[i]);
    if (sum > 0) {
      for (double& share : shares[i]) share /= sum;
    } else {
      shares[i] = Unit(length, static_cast<int64_t>(i));
    }
  }
  return shares;
}

Vector MeanOfRows(const std::vector<Vector>& rows) {
  Vector mean(rows[0].size(), 0.0);
  for (const Vector& row : rows) {
    for (size_t j = 0; j < row.size(); ++j) mean[j] += row[j] / rows.size();
  }
  return mean;
}

// Value and derivative of the Legendre polynomial of degree n.
std::pair<double, double> Legendre(int64_t n, double x) {
  double before = 1, value = x;
  for (int64_t k = 2; k <= n; ++k) {
    const double next = ((2 * k - 1) * x * value - (k - 1) * before) / k;
    before = value;
    value = next;
  }
  return {value, n * (x * value - before) / (x * x - 1)};
}

// Nodes and weights on [0, 1]; roots by bisection of the sign changes on a fine
// grid.
std::vector<std::pair<double, double>> Nodes(IntegrationRule rule,
                                             int64_t steps) {
  std::vector<std::pair<double, double>> nodes;
  if (rule == IntegrationRule::kGaussLegendre) {
    // The roots' angles are nearly even, so no two share a cell.
    const int64_t cells = 64 * steps + 1;
    for (int64_t cell = 0; cell < cells; ++cell) {
      double low = std::cos(M_PI * (cells - cell) / cells);
      double high = std::cos(M_PI * (cells - cell - 1) / cells);
      const double sign = Legendre(steps, low).first;
      if (sign * Legendre(steps, high).first >= 0) continue;
      for (int i = 0; i < 200; ++i) {
        const double middle = 0.5 * (low + high);
        (sign * Legendre(steps, middle).first > 0 ? low : high) = middle;
      }
      const double slope = Legendre(steps, low).second;
      nodes.emplace_back(0.5 * (1 + low),
                         1 / ((1 - low * low) * slope * slope));
    }
    return nodes;
  }
  for (int64_t step = 1; step <= steps; ++step) {
    const double u = (step - 0.5) / steps;
    if (rule == IntegrationRule::kCubic) {
      nodes.emplace_back(std::pow(u, 3), 3 * u * u / steps);
    } else {
      nodes.emplace_back(u, 1.0 / steps);
    }
  }
  return nodes;
}

}  // namespace

Matrix Reduced(const Block& block, ChannelReduction reduction) {
  const size_t length = block.stream.size();
  const size_t channels = block.alpha.size();
  Vector norms(channels, 0.0);  // of the columns of the output projection
  for (size_t c = 0; c < channels; ++c) {
    for (const Vector& row : block.weight) norms[c] += row[c] * row[c];
    norms[c] = std::sqrt(norms[c]);
  }
  Matrix out = Zeros(length, length);
  for (size_t i = 0; i < length; ++i) {
    for (size_t j = 0; j < length; ++j) {
      double sum = 0, sum_abs = 0, sum_pos = 0, squares = 0, weighted = 0;
      double high = -std::numeric_limits<double>::infinity(), low = -high;
      for (size_t c = 0; c < channels; ++c) {
        const double a = block.alpha[c][i][j];
        sum += a;
        sum_abs += std::abs(a);
        sum_pos += std::max(a, 0.0);
        squares += a * a;
        weighted += std::abs(a) * norms[c];
        high = std::max(high, a);
        low = std::min(low, a);
      }
      const auto count = static_cast<double>(channels);
      switch (reduction) {
        case ChannelReduction::kMeanAbs:
          out[i][j] = sum_abs / count;
          break;
        case ChannelReduction::kMean:
          out[i][j] = sum / count;
          break;
        case ChannelReduction::kMeanPos:
          out[i][j] = sum_pos / count;
          break;
        case ChannelReduction::kPosMean:
          out[i][j] = std::max(sum / count, 0.0);
          break;
        case ChannelReduction::kMax:
          out[i][j] = high;
          break;
        case ChannelReduction::kMin:
          out[i][j] = low;
          break;
        case ChannelReduction::kL2:
          out[i][j] = std::sqrt(squares / count);
          break;
        case ChannelReduction::kWnorm:
          out[i][j] = weighted / Sum(norms);
          break;
        case ChannelReduction::kAll:
          break;
      }
    }
  }
  return out;
}

Vector RawAttention(const Blocks& blocks, ChannelReduction reduction,
                    const MethodOptions& options, int64_t position) {
  std::vector<Vector> rows;
  for (size_t l = StartOf(options); l < blocks.size(); ++l) {
    rows.push_back(Reduced(blocks[l], reduction)[position]);
  }
  return MeanOfRows(rows);
}

Vector AttentionRollout(const Blocks& blocks, ChannelReduction reduction,
                        const MethodOptions& options, int64_t position) {
  std::vector<Matrix> layers;
  for (size_t l = StartOf(options); l < blocks.size(); ++l) {
    layers.push_back(WithResidual(Reduced(blocks[l], reduction),
                                  options.residual_weight.value_or(1)));
  }
  return RowOfProduct(layers, blocks[0].stream.size(), position);
}

Vector AttentionGradient(const Blocks& blocks, ChannelReduction reduction,
                         const MethodOptions& options, int64_t position,
                         int64_t seen) {
  const size_t length = blocks[0].stream.size();
  std::vector<Matrix> layers;
  for (size_t l = StartOf(options); l < blocks.size(); ++l) {
    const Block& block = blocks[l];
    if (options.compat == Compatibility::kUpstream) {
      Vector weights;
      for (int64_t j = 0; j < seen; ++j) {
        weights.push_back(MaxRelu(block.gradient[j]));
      }
      MinMax(weights);
      Vector row = Reduced(block, ChannelReduction::kMeanPos)[position];
      row.resize(seen);
      for (int64_t j = 0; j < seen; ++j) row[j] *= weights[j];
      MinMax(row);
      layers.push_back(WithResidual(Matrix(seen, row), 1));
      continue;
    }
    const bool max_relu =
        options.gradient_reduction == GradientReduction::kMaxRelu;
    Matrix weighted = Reduced(block, reduction);
    for (size_t i = 0; i < length; ++i) {
      for (size_t j = 0; j < length; ++j) {
        const Vector& gradient =
            block.gradient[options.axis == GradientAxis::kTarget ? i : j];
        const double weight =
            max_relu ? MaxRelu(gradient)
                     : Sum(gradient) / static_cast<double>(gradient.size());
        weighted[i][j] = std::max(0.0, weighted[i][j] * weight);
      }
    }
    layers.push_back(
        WithResidual(weighted, options.residual_weight.value_or(1)));
  }
  const bool cut = options.compat == Compatibility::kUpstream;
  Vector row = RowOfProduct(layers, cut ? seen : length, position);
  row.resize(length, 0.0);
  return row;
}

Vector ValueContribution(const Blocks& blocks, const MethodOptions& options,
                         int64_t position) {
  std::vector<Vector> rows;
  for (size_t l = StartOf(options); l < blocks.size(); ++l) {
    rows.emplace_back();
    for (size_t j = 0; j < blocks[l].stream.size(); ++j) {
      rows.back().push_back(
          Norm(Contribution(blocks[l], position, j), options.norm.value_or(2)));
    }
  }
  return MeanOfRows(rows);
}

Vector Alti(const Blocks& blocks, const MethodOptions& options,
            int64_t position) {
  std::vector<Matrix> layers;
  for (size_t l = StartOf(options); l < blocks.size(); ++l) {
    layers.push_back(AltiShares(blocks[l]));
  }
  return RowOfProduct(layers, blocks[0].stream.size(), position);
}

Vector GradientNorm(const Matrix& gradient, const MethodOptions& options) {
  Vector out;
  for (const Vector& row : gradient) {
    out.push_back(Norm(row, options.norm.value_or(2)));
  }
  return out;
}

Matrix InputXGradient(const Matrix& gradient, const Matrix& input) {
  Matrix out = gradient;
  for (size_t t = 0; t < out.size(); ++t) {
    for (size_t e = 0; e < out[t].size(); ++e) out[t][e] *= input[t][e];
  }
  return out;
}

Matrix IntegratedGradients(const Matrix& baseline, const Matrix& input,
                           const MethodOptions& options,
                           const GradientAt& gradient) {
  Matrix out = Zeros(input.size(), input[0].size());
  for (const auto& [node, weight] : Nodes(*options.rule, *options.steps)) {
    Matrix point = baseline;
    for (size_t t = 0; t < point.size(); ++t) {
      for (size_t e = 0; e < point[t].size(); ++e) {
        point[t][e] += node * (input[t][e] - baseline[t][e]);
      }
    }
    const Matrix there = gradient(point);
    for (size_t t = 0; t < point.size(); ++t) {
      for (size_t e = 0; e < point[t].size(); ++e) {
        out[t][e] += weight * there[t][e] * (input[t][e] - baseline[t][e]);
      }
    }
  }
  return out;
}

Vector FrozenLinear(const Matrix& input, const ScoreAt& frozen) {
  const Matrix nothing = Zeros(input.size(), input[0].size());
  const double constant = frozen(nothing);
  Vector out;
  for (size_t t = 0; t < input.size(); ++t) {
    Matrix alone = nothing;
    alone[t] = input[t];
    out.push_back(frozen(alone) - constant);
  }
  return out;
}

Vector Occlusion(const Matrix& input, const Matrix& replacement,
                 const std::vector<std::vector<int64_t>>& windows,
                 const ScoreAt& score) {
  const double whole = score(input);
  Vector falls(input.size(), 0.0), counts(input.size(), 0.0);
  for (const std::vector<int64_t>& window : windows) {
    Matrix without = input;
    for (const int64_t t : window) without[t] = replacement[t];
    const double fall = whole - score(without);
    for (const int64_t t : window) {
      falls[t] += fall;
      ++counts[t];
    }
  }
  for (size_t t = 0; t < falls.size(); ++t) {
    falls[t] /= std::max(counts[t], 1.0);
  }
  return falls;
}

Vector SumOverWidth(const Matrix& elementwise) {
  Vector out;
  for (const Vector& row : elementwise) out.push_back(Sum(row));
  return out;
}

}  // namespace limpid::reference
