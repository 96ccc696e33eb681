// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/attribution/method.h"

namespace limpid::attributions::frozen_linear {

MethodEntry Entry();

}  // namespace limpid::attributions::frozen_linear
