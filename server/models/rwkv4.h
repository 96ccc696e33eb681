// SPDX-License-Identifier: Apache-2.0
//
// RWKV-4 (arXiv:2305.13048; model_type "rwkv").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::rwkv4 {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::rwkv4
