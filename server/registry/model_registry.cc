// SPDX-License-Identifier: Apache-2.0
#include "server/registry/model_registry.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/registry/lease.h"
#include "server/registry/model_folders.h"

namespace limpid {
namespace {

using Loaded = absl::StatusOr<std::shared_ptr<const Model>>;

// Exceptions should have stopped at the engine's seam; one that did not must
// not leave the model in kLoading for ever.
Loaded LoadGuarded(const ModelRegistry::LoadFunction& load,
                   const std::string& name, const std::string& folder) {
  try {
    Loaded loaded = load(name, folder);
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

ModelRegistry::ModelRegistry(Options options)
    : options_(std::move(options)), state_(std::make_shared<State>()) {
  MutexLock lock(state_->mutex);
  state_->observer = options_.observer;
}

ModelRegistry::~ModelRegistry() {
  MutexLock lock(state_->mutex);
  state_->observer = nullptr;
}

absl::Status ModelRegistry::Scan() {
  LIMPID_ASSIGN_OR_RETURN(const auto folders,
                          FindModelFolders(options_.repository));
  MutexLock lock(state_->mutex);
  auto& entries = state_->entries;
  for (const auto& [name, folder] : folders) entries[name].folder = folder;
  for (auto it = entries.begin(); it != entries.end();) {
    const bool idle = it->second.state == ModelState::kUnloaded ||
                      it->second.state == ModelState::kFailed;
    it = idle && folders.count(it->first) == 0 ? entries.erase(it)
                                               : std::next(it);
  }
  return absl::OkStatus();
}

ModelStatus ModelRegistry::Snapshot(const std::string& name,
                                    const Entry& entry) {
  return {name, entry.state, entry.failure, entry.info};
}

std::vector<ModelStatus> ModelRegistry::List() const {
  std::vector<ModelStatus> models;
  MutexLock lock(state_->mutex);
  for (const auto& [name, entry] : state_->entries) {
    models.push_back(Snapshot(name, entry));
  }
  return models;
}

std::vector<std::string> ModelRegistry::Names() const {
  std::vector<std::string> names;
  MutexLock lock(state_->mutex);
  for (const auto& [name, entry] : state_->entries) names.push_back(name);
  return names;
}

absl::StatusOr<ModelRegistry::Entry*> ModelRegistry::Find(
    State& state, absl::string_view name) {
  const auto it = state.entries.find(std::string(name));
  if (it != state.entries.end()) return &it->second;
  std::vector<std::string> known;
  for (const auto& [other, entry] : state.entries) known.push_back(other);
  return UnknownModelStatus(name, known);
}

absl::StatusOr<ModelStatus> ModelRegistry::Get(absl::string_view name) const {
  MutexLock lock(state_->mutex);
  LIMPID_ASSIGN_OR_RETURN(Entry* const entry, Find(*state_, name));
  return Snapshot(std::string(name), *entry);
}

absl::StatusOr<std::shared_ptr<const Model>> ModelRegistry::Lease(
    absl::string_view name) const {
  MutexLock lock(state_->mutex);
  LIMPID_ASSIGN_OR_RETURN(Entry* const entry, Find(*state_, name));
  LIMPID_RETURN_IF_ERROR(
      StateStatus(std::string(name), entry->state, entry->failure));
  entry->last_use = ++state_->num_uses;
  return entry->lease;
}

std::vector<Resident> ModelRegistry::Residents(const State& state,
                                               bool may_evict) {
  std::vector<Resident> residents;
  for (const auto& [name, entry] : state.entries) {
    if (entry.reserved_bytes == 0) continue;
    // Leases are made under the lock only, so that nobody can get one now.
    const bool idle = may_evict && entry.state == ModelState::kReady &&
                      !entry.reloading && entry.num_alive == 1 &&
                      entry.lease.use_count() == 1;
    residents.push_back({name, entry.reserved_bytes, entry.last_use, idle});
  }
  return residents;
}

absl::StatusOr<int64_t> ModelRegistry::Reserve(const std::string& name,
                                               const std::string& folder,
                                               bool may_evict) {
  const int64_t budget = options_.max_resident_bytes;
  if (budget == std::numeric_limits<int64_t>::max()) return 0;
  LIMPID_ASSIGN_OR_RETURN(const int64_t need, options_.estimate_bytes(folder));
  // Others may take what was freed before this thread comes back to it.
  while (true) {
    std::vector<std::shared_ptr<const Model>> evicted;
    std::vector<std::string> names;
    {
      MutexLock lock(state_->mutex);
      LIMPID_ASSIGN_OR_RETURN(
          names,
          ChooseEvictions(name, need, budget, Residents(*state_, may_evict)));
      if (names.empty()) {
        state_->entries[name].reserved_bytes += need;
        return need;
      }
      for (const std::string& other : names) {
        Entry& entry = state_->entries[other];
        entry.state = ModelState::kUnloading;
        entry.failure = EvictedStatus(other, name);
        evicted.push_back(std::move(entry.lease));
      }
    }
    // Freed here; OnLastLeaseGone gives their bytes back.
    evicted.clear();
    if (options_.observer == nullptr) continue;
    for (const std::string& other : names) {
      options_.observer->OnEvicted(other, name);
    }
  }
}

bool ModelRegistry::FolderChanged(const std::string& name) const {
  std::string folder, fingerprint;
  {
    MutexLock lock(state_->mutex);
    const auto it = state_->entries.find(name);
    if (it == state_->entries.end()) return false;
    folder = it->second.folder;
    fingerprint = it->second.fingerprint;
  }
  return options_.fingerprint(folder) != fingerprint;
}

std::map<std::string, std::string> ModelRegistry::Changed(bool unread) const {
  std::map<std::string, std::pair<std::string, std::string>> looked;
  {
    MutexLock lock(state_->mutex);
    for (const auto& [name, entry] : state_->entries) {
      const bool is_unread = entry.last_fingerprint.empty();
      const bool wanted = entry.state == ModelState::kReady ||
                          entry.state == ModelState::kFailed ||
                          (entry.state == ModelState::kUnloaded && is_unread);
      if (!wanted || entry.reloading || (is_unread && !unread)) continue;
      looked[name] = {entry.folder, entry.last_fingerprint};
    }
  }
  std::map<std::string, std::string> changed;
  for (const auto& [name, seen] : looked) {
    std::string now = options_.fingerprint(seen.first);
    // A folder that is gone is no reason to read it.
    if (!now.empty() && now != seen.second) changed[name] = std::move(now);
  }
  return changed;
}

void ModelRegistry::Load(const std::string& name, bool may_evict, Done done) {
  if (!Get(name).ok()) {
    // Names come from the directory's listing only, never from a caller.
    if (absl::Status status = Scan(); !status.ok()) {
      return done(std::move(status));
    }
  }
  const bool changed = FolderChanged(name);
  std::string folder;
  absl::StatusOr<ModelStatus> now = ModelStatus();
  bool start = false;
  {
    MutexLock lock(state_->mutex);
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
            entry.waiting.push_back(std::move(done));
          } else {
            now = Snapshot(name, entry);
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
  // Before the files are read: what changes meanwhile counts as changed.
  const std::string fingerprint = options_.fingerprint(folder);
  const absl::StatusOr<int64_t> reserved = Reserve(name, folder, may_evict);
  Loaded loaded = reserved.ok() ? LoadGuarded(options_.load, name, folder)
                                : Loaded(reserved.status());
  FinishLoad(name, options_.clock->Now() - begin, reserved.value_or(0),
             fingerprint, std::move(loaded));
}

void ModelRegistry::FinishLoad(const std::string& name, absl::Duration took,
                               int64_t reserved_bytes,
                               const std::string& fingerprint, Loaded loaded) {
  const absl::Status status = loaded.status();
  std::vector<Done> waiting;
  std::shared_ptr<const Model> replaced;
  absl::StatusOr<ModelStatus> now = ModelStatus();
  {
    MutexLock lock(state_->mutex);
    // Nothing erases an entry while it is loading.
    Entry& entry = state_->entries[name];
    entry.last_fingerprint = fingerprint;
    if (status.ok()) {
      replaced = std::move(entry.lease);
      entry.state = ModelState::kReady;
      entry.failure = absl::OkStatus();
      entry.info = (*loaded)->info();
      entry.last_use = ++state_->num_uses;
      entry.fingerprint = fingerprint;
      ++entry.num_alive;
      entry.lease = MakeLease(
          *std::move(loaded),
          [weak = std::weak_ptr<State>(state_), name, reserved_bytes] {
            OnLastLeaseGone(weak, name, reserved_bytes);
          });
      now = Snapshot(name, entry);
    } else {
      entry.failure = status;
      entry.reserved_bytes -= reserved_bytes;
      if (!entry.reloading) entry.state = ModelState::kFailed;
      now = StateStatus(name, ModelState::kFailed, entry.failure);
    }
    entry.reloading = false;
    waiting.swap(entry.waiting);
  }
  // Freed here, without the lock, if nobody uses it any more.
  replaced.reset();
  if (options_.observer != nullptr) {
    options_.observer->OnLoadEnded(name, took, status);
    options_.observer->OnModelChanged(name);
  }
  for (Done& done : waiting) done(now);
}

void ModelRegistry::Unload(const std::string& name, Done done) {
  std::shared_ptr<const Model> last;
  absl::StatusOr<ModelStatus> now = ModelStatus();
  {
    MutexLock lock(state_->mutex);
    absl::StatusOr<Entry*> found = Find(*state_, name);
    if (!found.ok()) {
      now = found.status();
    } else {
      Entry& entry = **found;
      switch (entry.reloading ? ResidencyAction::kRefuse
                              : OnUnloadWish(entry.state)) {
        case ResidencyAction::kStart:
          entry.state = ModelState::kUnloading;
          entry.failure = absl::OkStatus();
          entry.waiting.push_back(std::move(done));
          last = std::move(entry.lease);
          break;
        case ResidencyAction::kJoin:
          entry.waiting.push_back(std::move(done));
          return;
        case ResidencyAction::kNothing:
          now = Snapshot(name, entry);
          break;
        case ResidencyAction::kRefuse:
          now = StateStatus(name, ModelState::kLoading, entry.failure);
          break;
      }
    }
  }
  if (last == nullptr) return done(std::move(now));
  if (options_.observer != nullptr) options_.observer->OnModelChanged(name);
  // If nobody uses the model it is freed here, without the lock, and
  // OnLastLeaseGone does the rest.
  last.reset();
}

void ModelRegistry::OnLastLeaseGone(const std::weak_ptr<State>& weak,
                                    const std::string& name, int64_t bytes) {
  const std::shared_ptr<State> state = weak.lock();
  if (state == nullptr) return;  // the registry went first
  std::vector<Done> waiting;
  ModelStatus now;
  RegistryObserver* observer = nullptr;
  {
    MutexLock lock(state->mutex);
    Entry& entry = state->entries[name];
    entry.reserved_bytes -= bytes;
    // One that was replaced has gone, or one is left that was.
    if (--entry.num_alive > 0 || entry.state == ModelState::kReady) return;
    entry.state = ModelState::kUnloaded;
    entry.info.reset();
    waiting.swap(entry.waiting);
    now = Snapshot(name, entry);
    observer = state->observer;
  }
  if (observer != nullptr) observer->OnModelChanged(name);
  for (Done& done : waiting) done(now);
}

}  // namespace limpid
