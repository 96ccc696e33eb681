// SPDX-License-Identifier: Apache-2.0
//
// Small networks with random weights, without files: one for every
// configuration that an architecture lists.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "server/models/architecture.h"

namespace limpid::testing {

// A tiny configuration of a listed architecture.
struct TinyCase {
  const ArchitectureSpec* spec = nullptr;
  std::string config;
  std::string name;  // for example "mamba_0"
};
// How GoogleTest shows it.
inline void PrintTo(const TinyCase& tiny, std::ostream* out) {
  *out << tiny.name;
}
std::vector<TinyCase> TinyCases();

// The network of a configuration with seeded random weights; the same seed
// gives the same values in float32 and float64 up to rounding. `scale` gives
// every tensor a factor by its name; empty: 1. Fails the test if it can't be
// built.
using WeightScale = std::function<double(const std::string& name)>;
std::unique_ptr<const Network> MakeRandomNetwork(const TinyCase& tiny,
                                                 at::ScalarType dtype,
                                                 uint64_t seed,
                                                 const WeightScale& scale = {},
                                                 at::Device device = at::kCPU);
// The same with its layers where the options say.
std::unique_ptr<const Network> MakeRandomNetwork(const TinyCase& tiny,
                                                 const BuildOptions& options,
                                                 uint64_t seed,
                                                 const WeightScale& scale = {});
// The same with weights as a checkpoint of the type `stored` has them.
std::unique_ptr<const Network> MakeStoredNetwork(const TinyCase& tiny,
                                                 const BuildOptions& options,
                                                 at::ScalarType stored,
                                                 uint64_t seed,
                                                 const WeightScale& scale = {});

// Seeded token ids [batch, length], or pixels for networks that look at
// pictures.
NetworkInput RandomInput(const Network& network, int64_t batch, int64_t length,
                         uint64_t seed);

// Those of `lengths` that the network takes: all, or the one of its pictures.
std::vector<int64_t> LengthsOf(const Network& network,
                               std::vector<int64_t> lengths);

}  // namespace limpid::testing
