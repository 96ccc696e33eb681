// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/attribution/method.h"

namespace limpid::attributions::input_x_gradient {

MethodEntry Entry();

}  // namespace limpid::attributions::input_x_gradient
