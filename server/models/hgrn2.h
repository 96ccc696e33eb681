// SPDX-License-Identifier: Apache-2.0
//
// HGRN2 (arXiv:2404.07904; model_type "hgrn2").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::hgrn2 {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::hgrn2
