// SPDX-License-Identifier: Apache-2.0
//
// How the registry makes models resident.
#include <algorithm>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/registry/lease.h"
#include "server/registry/model_registry.h"

namespace limpid {
namespace {

using Loaded = absl::StatusOr<std::shared_ptr<const Model>>;

// Exceptions should have stopped at the engine's seam; one that did not must
// not leave the model in kLoading for ever.
Loaded LoadGuarded(const ModelRegistry::LoadFunction& load,
                   const std::string& name, const VersionFolder& folder,
                   const Placement& placement) {
  try {
    Loaded loaded = load(name, folder, placement);
    if (loaded.ok() && *loaded == nullptr) {
      return MakeError(absl::StatusCode::kInternal, "MODEL_FAILED",
                       "the load function returned no model");
    }
    return loaded;
  } catch (const std::exception& e) {
    return MakeError(absl::StatusCode::kInternal, "MODEL_FAILED",
                     absl::StrCat("exception while loading: ", e.what()));
  } catch (...) {
    return MakeError(absl::StatusCode::kInternal, "MODEL_FAILED",
                     "unknown exception while loading");
  }
}

}  // namespace

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
      if (bytes > 0) residents[i].push_back({name, bytes, entry.last_use, idle});
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
    auto residents = Residents(*state_, /*may_evict=*/false, {});
    int64_t most_free = need - 1;
    for (size_t i = 0; i < residents.size(); ++i) {
      if (entry.lease->devices().Has(static_cast<int64_t>(i))) continue;
      int64_t free = options_.max_resident_bytes;
      for (const Resident& resident : residents[i]) free -= resident.bytes;
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

bool ModelRegistry::FolderChanged(const std::string& name) const {
  ModelFolder folder;
  std::string fingerprint;
  {
    MutexLock lock(state_->mutex);
    const auto it = state_->entries.find(name);
    if (it == state_->entries.end()) return false;
    folder = it->second.folder;
    fingerprint = it->second.fingerprint;
  }
  return FingerprintOf(folder) != fingerprint;
}

void ModelRegistry::Load(const std::string& name, bool may_evict, Done done) {
  // Names come from the directory's listing only, never from a caller.
  if (absl::Status status = Scan(); !status.ok() && !Knows(name)) {
    return done(std::move(status));
  }
  const bool changed = FolderChanged(name);
  ModelFolder folder;
  std::optional<ServedVersion> served;
  absl::StatusOr<ModelStatus> now = ModelStatus();
  bool start = false;
  {
    MutexLock lock(state_->mutex);
    if (state_->entries.count(name) == 0) {
      // A version that is wanted by its own name.
      ModelFolder version = FolderOf(*state_, name);
      if (!version.empty()) state_->entries[name].folder = std::move(version);
    }
    absl::StatusOr<Entry*> found = Find(*state_, name);
    if (!found.ok()) {
      now = found.status();
    } else {
      Entry& entry = **found;
      switch (OnLoadWish(entry.state)) {
        case ResidencyAction::kStart:
          start = true;
          folder = entry.folder;
          entry.state = ModelState::kLoading;
          entry.failure = absl::OkStatus();
          entry.waiting.push_back(std::move(done));
          break;
        case ResidencyAction::kJoin:
          entry.waiting.push_back(std::move(done));
          return;
        case ResidencyAction::kNothing:
          if (entry.reloading) {
            entry.waiting.push_back(std::move(done));
            return;
          }
          start = entry.reloading = changed;
          if (start) {
            folder = entry.folder;
            served = {entry.info->version, entry.served_fingerprint};
            entry.waiting.push_back(std::move(done));
          } else {
            now = Snapshot(*state_, name, entry);
          }
          break;
        case ResidencyAction::kRefuse:
          now = StateStatus(name, entry.state, entry.failure);
          break;
      }
    }
  }
  if (!start) return done(std::move(now));
  if (options_.observer != nullptr) options_.observer->OnModelChanged(name);
  const absl::Time begin = options_.clock->Now();
  Reading reading = Read(name, folder, served, may_evict);
  FinishLoad(name, options_.clock->Now() - begin, std::move(reading));
}

ModelRegistry::Reading ModelRegistry::Read(
    const std::string& name, const ModelFolder& folder,
    const std::optional<ServedVersion>& served, bool may_evict) {
  Reading reading;
  // Before the files are read: what changes meanwhile counts as changed.
  reading.fingerprint = FingerprintOf(folder);
  reading.choice = ChooseVersion(
      folder, served, options_.fingerprint,
      [&](const VersionFolder& version) -> absl::Status {
        LIMPID_ASSIGN_OR_RETURN(auto reservation,
                                Reserve(name, version.path, may_evict));
        reading.loaded = LoadGuarded(options_.load, name, version,
                                     reservation->placement);
        if (reading.loaded.ok()) {
          reading.reservation = std::move(reservation);
          reading.path = version.path;
        } else {
          MutexLock lock(state_->mutex);
          Add(reservation->bytes, -1, state_->entries[name]);
        }
        return reading.loaded.status();
      });
  return reading;
}

void ModelRegistry::FinishLoad(const std::string& name, absl::Duration took,
                               Reading reading) {
  const VersionChoice& choice = reading.choice;
  const bool is_new = choice.read.has_value();
  std::vector<Done> waiting;
  std::shared_ptr<const Model> replaced;
  absl::StatusOr<ModelStatus> now = ModelStatus();
  {
    MutexLock lock(state_->mutex);
    // Nothing erases an entry while it is loading.
    Entry& entry = state_->entries[name];
    entry.last_fingerprint = reading.fingerprint;
    entry.failure = choice.failure;
    if (is_new) {
      replaced = std::move(entry.lease);
      entry.state = ModelState::kReady;
      entry.info = (*reading.loaded)->info();
      entry.last_use = ++state_->num_uses;
      entry.served_fingerprint = choice.fingerprint;
      entry.served_path = reading.path;
      entry.reservation = reading.reservation;
      ++entry.num_alive;
      entry.lease = MakeLease(*std::move(reading.loaded),
                              [weak = std::weak_ptr<State>(state_), name,
                               reservation = std::move(reading.reservation)] {
                                OnLastLeaseGone(weak, name, *reservation);
                              });
    } else if (!choice.keeps) {
      entry.state = ModelState::kFailed;
    }
    // What could not be read is tried again by the next wish.
    if (choice.failure.ok()) entry.fingerprint = reading.fingerprint;
    if (is_new || choice.failure.ok()) {
      now = Snapshot(*state_, name, entry);
    } else {
      now = StateStatus(name, ModelState::kFailed, entry.failure);
    }
    entry.reloading = false;
    waiting.swap(entry.waiting);
  }
  // Freed here, without the lock, if nobody uses it any more.
  replaced.reset();
  if (options_.observer != nullptr) {
    // A newer version that could not be read, and the one that was.
    if (!choice.failure.ok()) {
      options_.observer->OnLoadEnded(name, took, choice.failure);
    }
    if (is_new) options_.observer->OnLoadEnded(name, took, absl::OkStatus());
    options_.observer->OnModelChanged(name);
  }
  if (is_new && options_.num_copies > 1) {
    for (int64_t i = 1; i < options_.num_copies; ++i) {
      if (!AddCopy(name).ok()) break;
    }
    // It may have been unloaded meanwhile, which is not what was wished here.
    auto copied = Get(name);
    if (now.ok() && copied.ok() && copied->state == ModelState::kReady) {
      now = std::move(copied);
    }
  }
  for (Done& done : waiting) done(now);
}

}  // namespace limpid
