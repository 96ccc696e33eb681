// SPDX-License-Identifier: Apache-2.0
//
// Vision Mamba (arXiv:2401.09417), bidirectional v2 with a class token among
// the patches. There is no published config.json: ours has model_type "vim" and
// the names of the constructor of hustvl's VisionMamba.
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::vim {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::vim
