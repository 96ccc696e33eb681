// SPDX-License-Identifier: Apache-2.0
//
// How the registry makes models resident.
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
        reading.loaded =
            LoadGuarded(options_.load, name, version, reservation->placement);
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
