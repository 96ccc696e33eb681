// SPDX-License-Identifier: Apache-2.0
#include "server/registry/lease.h"

#include <utility>

namespace limpid {

std::shared_ptr<const Model> MakeLease(std::shared_ptr<const Model> model,
                                       std::function<void()> on_last_gone) {
  const Model* const raw = model.get();
  return std::shared_ptr<const Model>(
      raw, [model = std::move(model),
            on_last_gone = std::move(on_last_gone)](const Model*) mutable {
        model.reset();
        on_last_gone();
      });
}

}  // namespace limpid
