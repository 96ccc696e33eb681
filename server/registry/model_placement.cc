// SPDX-License-Identifier: Apache-2.0
//
// Where the registry puts models and their copies, and who goes for them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/registry/model_registry.h"

namespace limpid {

void ModelRegistry::Add(const std::vector<int64_t>& bytes, int64_t sign,
                        Entry& entry) {
  entry.reserved.resize(std::max(entry.reserved.size(), bytes.size()));
  for (size_t device = 0; device < bytes.size(); ++device) {
    entry.reserved[device] += sign * bytes[device];
  }
}

std::vector<std::vector<Resident>> ModelRegistry::Residents(
    const State& state, bool may_evict, const CopyNames& kept) {
  std::vector<std::vector<Resident>> residents(state.device_names.size());
  for (const auto& [name, entry] : state.entries) {
    const bool settled = may_evict && entry.state == ModelState::kReady &&
                         !entry.reloading && !entry.copying;
    // Leases are made under the lock only, so that nobody can get one now.
    const bool idle =
        settled && entry.num_alive == 1 && entry.lease.use_count() == 1;
    for (size_t i = 0; i < entry.reserved.size(); ++i) {
      const auto device = static_cast<int64_t>(i);
      int64_t bytes = entry.reserved[i];
      if (entry.reservation != nullptr) {
        const auto copy = entry.reservation->copies.find(device);
        if (copy != entry.reservation->copies.end()) {
          const bool may_go = settled && kept.count({name, device}) == 0;
          residents[i].push_back(
              {name, copy->second, entry.last_use, may_go, /*extra=*/true});
          bytes -= copy->second;
        }
      }
      if (bytes > 0)
        residents[i].push_back({name, bytes, entry.last_use, idle});
    }
  }
  return residents;
}

std::vector<ModelRegistry::Leaving> ModelRegistry::TakeLeaving(
    State& state, const PlacementChoice& choice, const std::string& by) {
  std::vector<Leaving> leaving;
  for (size_t device = 0; device < choice.evictions.size(); ++device) {
    for (const Resident& resident : choice.evictions[device]) {
      Entry& entry = state.entries[resident.name];
      if (resident.extra) {
        leaving.push_back({resident.name, static_cast<int64_t>(device),
                           /*is_copy=*/true, entry.lease, entry.reservation});
      } else if (entry.state == ModelState::kReady) {  // on one device or more
        entry.state = ModelState::kUnloading;
        entry.failure = EvictedStatus(resident.name, by);
        leaving.push_back({resident.name, static_cast<int64_t>(device),
                           /*is_copy=*/false, std::move(entry.lease), nullptr});
      }
    }
  }
  return leaving;
}

bool ModelRegistry::DropCopy(const Leaving& copy) {
  // None if the model goes as a whole.
  if (copy.model == nullptr || !options_.drop_copy(*copy.model, copy.device)) {
    return false;
  }
  MutexLock lock(state_->mutex);
  const int64_t bytes = copy.reservation->copies[copy.device];
  copy.reservation->copies.erase(copy.device);
  copy.reservation->bytes[copy.device] -= bytes;
  state_->entries[copy.name].reserved[copy.device] -= bytes;
  return true;
}

absl::StatusOr<std::shared_ptr<ModelRegistry::Reservation>>
ModelRegistry::Reserve(const std::string& name, const std::string& folder,
                       bool may_evict) {
  auto reservation = std::make_shared<Reservation>();
  const int64_t budget = options_.max_resident_bytes;
  const bool several = options_.devices.size() > 1;
  if (budget == std::numeric_limits<int64_t>::max() && !several) {
    return reservation;
  }
  LIMPID_ASSIGN_OR_RETURN(const int64_t need, options_.estimate_bytes(folder));
  std::vector<int64_t> layer_bytes;
  if (need > budget && several) {
    LIMPID_ASSIGN_OR_RETURN(layer_bytes, options_.layer_bytes(folder));
  }
  CopyNames kept;
  // Others may take what was freed before this thread comes back to it.
  while (true) {
    std::vector<Leaving> leaving;
    {
      MutexLock lock(state_->mutex);
      LIMPID_ASSIGN_OR_RETURN(
          PlacementChoice choice,
          ChoosePlacement(name, need, layer_bytes, budget,
                          Residents(*state_, may_evict, kept)));
      leaving = TakeLeaving(*state_, choice, name);
      if (leaving.empty()) {
        Add(choice.bytes, 1, state_->entries[name]);
        reservation->bytes = std::move(choice.bytes);
        reservation->placement = std::move(choice.placement);
        return reservation;
      }
    }
    for (Leaving& one : leaving) {
      if (one.is_copy) {
        if (!DropCopy(one)) {
          kept.insert({one.name, one.device});
        } else if (options_.observer != nullptr) {
          options_.observer->OnCopyDropped(one.name, one.device, name);
        }
        one.model.reset();
        continue;
      }
      // Freed here; OnLastLeaseGone gives its bytes back.
      one.model.reset();
      if (options_.observer != nullptr) {
        options_.observer->OnEvicted(one.name, name);
      }
    }
  }
}

absl::Status ModelRegistry::AddCopy(const std::string& name) {
  std::shared_ptr<const Model> model;
  std::shared_ptr<Reservation> reservation;
  std::string path;
  int64_t device = -1, need = 0;
  {
    MutexLock lock(state_->mutex);
    LIMPID_ASSIGN_OR_RETURN(Entry* const found, Find(*state_, name));
    Entry& entry = *found;
    LIMPID_RETURN_IF_ERROR(StateStatus(name, entry.state, entry.failure));
    if (entry.copying || entry.reloading ||
        entry.reservation->placement.is_split()) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       "MODEL_NOT_COPIED",
                       absl::StrCat("the model \"", name,
                                    "\" is being copied or read, or split"));
    }
    reservation = entry.reservation;
    need = reservation->bytes[reservation->placement.home()];
    const auto residents = Residents(*state_, /*may_evict=*/false, {});
    int64_t most_free = need - 1;
    for (size_t i = 0; i < residents.size(); ++i) {
      if (entry.lease->devices().Has(static_cast<int64_t>(i))) continue;
      const int64_t free = FreeBytes(options_.max_resident_bytes, residents[i]);
      if (free <= most_free) continue;
      most_free = free;
      device = static_cast<int64_t>(i);
    }
    if (device < 0) {
      return MakeError(absl::StatusCode::kResourceExhausted,
                       "MODEL_MEMORY_FULL",
                       absl::StrCat("no other device has room for a copy of "
                                    "the model \"",
                                    name, "\""));
    }
    entry.copying = true;
    entry.reserved[device] += need;
    reservation->bytes[device] += need;
    model = entry.lease;
    path = entry.served_path;
  }
  const absl::Time begin = options_.clock->Now();
  const absl::Status status = options_.copy(*model, path, device);
  {
    MutexLock lock(state_->mutex);
    Entry& entry = state_->entries[name];
    entry.copying = false;
    if (status.ok()) {
      reservation->copies[device] = need;
    } else {
      entry.reserved[device] -= need;
      reservation->bytes[device] -= need;
    }
  }
  model.reset();
  if (options_.observer != nullptr) {
    options_.observer->OnCopied(name, device, options_.clock->Now() - begin,
                                status);
    options_.observer->OnModelChanged(name);
  }
  return status;
}

}  // namespace limpid
