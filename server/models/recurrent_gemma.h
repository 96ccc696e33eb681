// SPDX-License-Identifier: Apache-2.0
//
// Griffin (arXiv:2402.19427) as RecurrentGemma publishes it (arXiv:2404.07839;
// model_type "recurrent_gemma"): gated linear recurrences and local attention.
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::recurrent_gemma {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::recurrent_gemma
