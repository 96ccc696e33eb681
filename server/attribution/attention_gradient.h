// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/attribution/method.h"

namespace limpid::attributions::attention_gradient {

MethodEntry Entry();

}  // namespace limpid::attributions::attention_gradient
