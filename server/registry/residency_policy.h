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
#include "server/models/model.h"

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

// What a device holds of a model that is resident or being loaded.
struct Resident {
  std::string name;
  int64_t bytes = 0;
  uint64_t last_use = 0;  // grows with every use
  bool idle = false;      // may go
  // A copy of a model that another device serves, too.
  bool extra = false;
};

// What a device's budget leaves beside what it holds.
int64_t FreeBytes(int64_t budget, const std::vector<Resident>& residents);

// Who must go so that `need` bytes fit into a device's budget beside the rest:
// idle ones, no more than needed; extra copies before models, those that have
// not been used for longest first. FAILED_PRECONDITION, reason MODEL_TOO_LARGE,
// if it never fits; RESOURCE_EXHAUSTED, reason MODEL_MEMORY_FULL, with the time
// to try again, if too much is in use.
absl::StatusOr<std::vector<Resident>> ChooseEvictions(
    const std::string& model, int64_t need, int64_t budget,
    std::vector<Resident> residents);

// Where a model goes, and who must go for it.
struct PlacementChoice {
  Placement placement;
  std::vector<int64_t> bytes;  // that it needs, of each device
  std::vector<std::vector<Resident>> evictions;  // on each device
};

// Puts a model that needs `need` bytes on one of the devices, which hold
// `residents` and have the same budget: where most is free, or else where least
// of models, and least at all, has to go. What is larger than a device's budget
// is split over as few as possible, with about as much on each; `layer_bytes`
// are what each layer needs of it. Errors as ChooseEvictions.
absl::StatusOr<PlacementChoice> ChoosePlacement(
    const std::string& model, int64_t need,
    const std::vector<int64_t>& layer_bytes, int64_t budget,
    const std::vector<std::vector<Resident>>& residents);

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
