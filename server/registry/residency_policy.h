// SPDX-License-Identifier: Apache-2.0
//
// States of a model's life and which wishes change them, as pure functions.
//
//   kUnloaded -> kLoading -> kReady -> kUnloading -> kUnloaded
//                   |          the way back waits for the last lease
//                   v
//                kFailed -> kLoading (tried again on demand)
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

enum class ModelState { kUnloaded, kLoading, kReady, kUnloading, kFailed };

// "unloaded", "loading", "ready", "unloading", "failed".
absl::string_view StateName(ModelState state);

// What a wish to load or to unload a model in some state leads to.
enum class ResidencyAction {
  kStart,    // do it
  kJoin,     // the same is being done: share its end
  kNothing,  // it is so already
  kRefuse,   // the opposite is being done
};
ResidencyAction OnLoadWish(ModelState state);
ResidencyAction OnUnloadWish(ModelState state);

// Why a model in `state` can't be used or changed now: UNAVAILABLE, reason
// MODEL_LOADING or MODEL_UNLOADING, with the time to try again;
// FAILED_PRECONDITION, reason MODEL_NOT_LOADED; for kFailed the failure itself
// with the model's name. Ok for kReady.
absl::Status StateStatus(const std::string& model, ModelState state,
                         const absl::Status& failure);

// NOT_FOUND, reason MODEL_NOT_FOUND, field "model", naming the known ones.
absl::Status UnknownModelStatus(absl::string_view model,
                                const std::vector<std::string>& known);

}  // namespace limpid
