// SPDX-License-Identifier: Apache-2.0
//
// RetNet (arXiv:2307.08621; model_type "retnet").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::retnet {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::retnet
