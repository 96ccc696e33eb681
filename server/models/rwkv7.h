// SPDX-License-Identifier: Apache-2.0
//
// RWKV-7 "Goose" (arXiv:2503.14456; model_type "rwkv7").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::rwkv7 {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::rwkv7
