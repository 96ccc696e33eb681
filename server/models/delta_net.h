// SPDX-License-Identifier: Apache-2.0
//
// DeltaNet (arXiv:2406.06484; model_type "delta_net").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::delta_net {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::delta_net
