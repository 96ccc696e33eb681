// SPDX-License-Identifier: Apache-2.0
#include "server/input/image_resize.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace limpid {
namespace {

// Weights are integers of 2^-22: with 8 bits of a pixel and 2 for what bicubic
// weights exceed 1, a sum fits 32 bits.
constexpr int kWeightBits = 22;

double Reach(ResizeFilter filter) {
  return filter == ResizeFilter::kBicubic ? 2.0 : 1.0;
}

// The order of operations is Pillow's; another one would round differently.
double WeightAt(ResizeFilter filter, double distance) {
  const double x = std::abs(distance);
  if (filter == ResizeFilter::kBilinear) return x < 1.0 ? 1.0 - x : 0.0;
  constexpr double a = -0.5;
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// Along one axis: output `i` is the sum of weights[k] * input[begin + k].
struct Taps {
  int64_t begin = 0;
  std::vector<int32_t> weights;
};

// Taps of the outputs [first, first + count) of an axis that goes from
// `in_size` pixels to `out_size`. Empty outside [0, out_size).
std::vector<Taps> AxisTaps(ResizeFilter filter, int64_t in_size,
                           int64_t out_size, int64_t first, int64_t count) {
  const double scale = static_cast<double>(in_size) / out_size;
  const double stretch = std::max(scale, 1.0);
  const double reach = Reach(filter) * stretch;
  const double shrink = 1.0 / stretch;
  std::vector<Taps> axis(static_cast<size_t>(count));
  std::vector<double> exact;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t out = first + i;
    if (out < 0 || out >= out_size) continue;
    const double center = (out + 0.5) * scale;
    // Conversion cuts towards zero, also just below it.
    const int64_t begin =
        std::max<int64_t>(0, static_cast<int64_t>(center - reach + 0.5));
    const int64_t end =
        std::min(in_size, static_cast<int64_t>(center + reach + 0.5));
    exact.clear();
    double sum = 0.0;
    for (int64_t in = begin; in < end; ++in) {
      exact.push_back(WeightAt(filter, (in - center + 0.5) * shrink));
      sum += exact.back();
    }
    Taps& taps = axis[static_cast<size_t>(i)];
    taps.begin = begin;
    for (const double weight : exact) {
      const double fixed = weight / sum * (1 << kWeightBits);
      taps.weights.push_back(
          static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return axis;
}

// One RGB pixel from those `step` values apart.
void Blend(const uint8_t* in, int64_t step, std::span<const int32_t> weights,
           uint8_t* out) {
  constexpr int32_t kHalf = 1 << (kWeightBits - 1);
  int32_t sums[3] = {kHalf, kHalf, kHalf};
  for (const int32_t weight : weights) {
    for (int c = 0; c < 3; ++c) sums[c] += weight * in[c];
    in += step;
  }
  for (int c = 0; c < 3; ++c) {
    out[c] = static_cast<uint8_t>(std::clamp(sums[c] >> kWeightBits, 0, 255));
  }
}

}  // namespace

PixelWindow CenterCrop(int64_t height, int64_t width, int64_t crop_height,
                       int64_t crop_width) {
  const auto offset = [](int64_t size, int64_t crop) {
    const int64_t rest = size - crop;
    if (rest < 0) return -(-rest / 2);
    const int64_t half = rest / 2;
    return rest % 2 == 0 ? half : half + half % 2;
  };
  return {offset(height, crop_height), offset(width, crop_width), crop_height,
          crop_width};
}

RgbImage ResizeAndCrop(const RgbImage& image, int64_t height, int64_t width,
                       ResizeFilter filter, const PixelWindow& window) {
  const std::vector<Taps> columns =
      AxisTaps(filter, image.width, width, window.left, window.width);
  const std::vector<Taps> rows =
      AxisTaps(filter, image.height, height, window.top, window.height);
  RgbImage out{window.height, window.width,
               std::vector<uint8_t>(
                   static_cast<size_t>(window.height * window.width * 3))};

  // The rows of the picture that some output needs.
  int64_t first = image.height, last = 0;
  for (const Taps& taps : rows) {
    if (taps.weights.empty()) continue;
    first = std::min(first, taps.begin);
    last = std::max<int64_t>(last, taps.begin + taps.weights.size());
  }
  if (first >= last) return out;

  // Across, then down; what lies between is rounded to 8 bits, as in Pillow.
  const int64_t stride = window.width * 3;
  std::vector<uint8_t> narrow(static_cast<size_t>((last - first) * stride));
  for (int64_t y = first; y < last; ++y) {
    const uint8_t* const in = image.pixels.data() + y * image.width * 3;
    for (int64_t x = 0; x < window.width; ++x) {
      const Taps& taps = columns[static_cast<size_t>(x)];
      if (taps.weights.empty()) continue;
      Blend(in + taps.begin * 3, 3, taps.weights,
            narrow.data() + (y - first) * stride + x * 3);
    }
  }
  for (int64_t y = 0; y < window.height; ++y) {
    const Taps& taps = rows[static_cast<size_t>(y)];
    if (taps.weights.empty()) continue;
    for (int64_t x = 0; x < window.width; ++x) {
      Blend(narrow.data() + (taps.begin - first) * stride + x * 3, stride,
            taps.weights, out.pixels.data() + y * stride + x * 3);
    }
  }
  return out;
}

}  // namespace limpid
