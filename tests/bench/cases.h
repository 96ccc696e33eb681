// SPDX-License-Identifier: Apache-2.0
//
// What limpid_bench measures.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "server/base/status.h"

namespace limpid::bench {

// One thing to be timed, with its inputs.
struct Prepared {
  std::function<void()> work;
  // What of it is not to be counted, timed in the same run; or empty.
  std::function<void()> baseline;
  // `work`, its results brought to the host as well; or empty.
  std::function<void()> to_host;
  // Least operations and bytes that it takes, without what is not to be
  // counted.
  double flops = 0;
  double bytes = 0;
  // What else the line says, as JSON fields, after the timing.
  std::function<std::string()> extra;
};

struct Case {
  // For example "mamba-130m/matrices/L=1024".
  std::string name;
  // Large ones are for GPUs.
  bool on_cpu = false;
  std::function<absl::StatusOr<Prepared>(at::Device device)> prepare;
};

std::vector<Case> Cases();

}  // namespace limpid::bench
