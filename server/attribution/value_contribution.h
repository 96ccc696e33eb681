// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/attribution/method.h"

namespace limpid::attributions::value_contribution {

MethodEntry Entry();

}  // namespace limpid::attributions::value_contribution
