// SPDX-License-Identifier: Apache-2.0
//
// Random inputs of Wkv, and room for what it gives.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "server/kernels/wkv.h"
#include "tests/unit/kernels/kernel_inputs.h"

namespace limpid::kernels {

struct WkvSizes {
  int64_t sequences = 1;
  int64_t positions = 1;
  int64_t channels = 1;

  int64_t size() const { return sequences * positions * channels; }
};

template <typename T>
struct WkvOutputs {
  explicit WkvOutputs(const WkvSizes& sizes) {
    for (auto& numbers : all) numbers.assign(sizes.size(), T{-7});
  }
  void Point(Wkv<T>& op) {
    op.out = all[0].data();
    op.key_factor = all[1].data();
    op.decay_factor = all[2].data();
    op.query = all[3].data();
    op.diagonal = all[4].data();
    op.gate = all[5].data();
  }
  static constexpr int kOutputs = 6;
  std::vector<T> all[kOutputs];
};

template <typename T>
struct WkvInputs {
  // Keys from -largest to largest.
  explicit WkvInputs(const WkvSizes& sizes, double largest = 3,
                     double strongest_decay = 5)
      : sizes(sizes) {
    std::mt19937_64 g(5);
    key = Values<T>::Random(sizes.size(), -largest, largest, g);
    value = Values<T>::Random(sizes.size(), -1, 1, g);
    gate_input = Values<T>::Random(sizes.size(), -4, 4, g);
    decay = Values<T>::Random(sizes.channels, -strongest_decay, 0, g);
    bonus = Values<T>::Random(sizes.channels, -1, 1, g);
  }
  Wkv<T> Op() const { return Make<T>(&Values<T>::data); }
  Wkv<double> Exact() const { return Make<double>(&Values<T>::exact); }

  WkvSizes sizes;
  Values<T> key, value, gate_input, decay, bonus;

 private:
  template <typename U, typename Get>
  Wkv<U> Make(Get get) const {
    Wkv<U> op;
    op.num_sequences = sizes.sequences;
    op.num_positions = sizes.positions;
    op.num_channels = op.channel_end = sizes.channels;
    op.key = (key.*get)();
    op.value = (value.*get)();
    op.gate_input = (gate_input.*get)();
    op.decay = (decay.*get)();
    op.bonus = (bonus.*get)();
    return op;
  }
};

}  // namespace limpid::kernels
