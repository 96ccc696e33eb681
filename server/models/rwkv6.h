// SPDX-License-Identifier: Apache-2.0
//
// RWKV-6 "Finch" (arXiv:2404.05892; model_type "rwkv6").
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::rwkv6 {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::rwkv6
