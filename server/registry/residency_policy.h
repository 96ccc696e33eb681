// SPDX-License-Identifier: Apache-2.0
//
// States of a model's life and which wishes change them, as pure functions.
//
//   kUnloaded -> kLoading -> kReady -> kUnloading -> kUnloaded
//                   |          the way back waits for the last lease
//                   v
//                kFailed -> kLoading (tried again on demand)
#pragma once

#include <cstdint>
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

// A model that is resident or being loaded.
struct Resident {
  std::string name;
  int64_t bytes = 0;
  uint64_t last_use = 0;  // grows with every use
  bool idle = false;      // may be evicted: ready, and nobody has a lease
};

// Who must go so that `need` bytes fit into the budget beside the rest: the
// idle ones that have not been used for longest, no more than needed.
// FAILED_PRECONDITION, reason MODEL_TOO_LARGE, if it never fits;
// RESOURCE_EXHAUSTED, reason MODEL_MEMORY_FULL, with the time to try again, if
// too much is in use.
absl::StatusOr<std::vector<std::string>> ChooseEvictions(
    const std::string& model, int64_t need, int64_t budget,
    std::vector<Resident> residents);

// The reason that an evicted model shows.
absl::Status EvictedStatus(const std::string& model, const std::string& by);

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
