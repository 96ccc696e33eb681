// SPDX-License-Identifier: Apache-2.0
//
// GLA, gated linear attention (arXiv:2312.06635; model_type "gla").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::gla {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::gla
