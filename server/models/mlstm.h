// SPDX-License-Identifier: Apache-2.0
//
// xLSTM made of mLSTM blocks alone (arXiv:2405.04517 and arXiv:2503.13427;
// model_type "xlstm"), in the layout of Hugging Face's xLSTMForCausalLM.
#pragma once

#include "server/models/architecture.h"

namespace limpid::architectures::mlstm {

ArchitectureSpec Spec();

}  // namespace limpid::architectures::mlstm
