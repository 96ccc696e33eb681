// SPDX-License-Identifier: Apache-2.0
//
// RWKV-5 "Eagle" (arXiv:2404.05892; model_type "rwkv5").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::rwkv5 {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::rwkv5
