// SPDX-License-Identifier: Apache-2.0
//
// Mamba-1 (arXiv:2312.00752) as Hugging Face publishes it (model_type "mamba").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::mamba {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::mamba
