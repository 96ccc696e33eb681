// SPDX-License-Identifier: Apache-2.0
//
// Gated DeltaNet (arXiv:2412.06464; model_type "gated_deltanet").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::gated_deltanet {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::gated_deltanet
