// SPDX-License-Identifier: Apache-2.0
//
// Mamba-2 (arXiv:2405.21060; model_type "mamba2").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::mamba2 {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::mamba2
