// SPDX-License-Identifier: Apache-2.0
//
// Tells when the last user of a model is gone.
#pragma once

#include <functional>
#include <memory>

#include "server/models/model.h"

namespace limpid {

// A pointer to `model` whose copies are leases: once the last one is gone the
// model is freed and then `on_last_gone` is called, both on the thread that
// gave back the last lease. Neither may throw. get() is the same as model's.
std::shared_ptr<const Model> MakeLease(std::shared_ptr<const Model> model,
                                       std::function<void()> on_last_gone);

}  // namespace limpid
