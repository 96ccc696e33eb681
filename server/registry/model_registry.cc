// SPDX-License-Identifier: Apache-2.0
#include "server/registry/model_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace limpid {
ModelRegistry::ModelRegistry(Options options)
    : options_(std::move(options)),
      state_(std::make_shared<State>(options_.devices)) {
  MutexLock lock(state_->mutex);
  state_->observer = options_.observer;
}

ModelRegistry::~ModelRegistry() {
  MutexLock lock(state_->mutex);
  state_->observer = nullptr;
}

absl::Status ModelRegistry::Scan() {
  LIMPID_ASSIGN_OR_RETURN(auto found,
                          options_.find_folders(options_.repository));
  MutexLock lock(state_->mutex);
  auto& entries = state_->entries;
  state_->found = std::move(found);
  for (const auto& [name, folder] : state_->found) entries[name];
  for (auto it = entries.begin(); it != entries.end();) {
    Entry& entry = it->second;
    ModelFolder folder = FolderOf(*state_, it->first);
    const bool idle = entry.state == ModelState::kUnloaded ||
                      entry.state == ModelState::kFailed;
    if (folder.empty() && idle) {
      it = entries.erase(it);
      continue;
    }
    if (!folder.empty()) entry.folder = std::move(folder);
    ++it;
  }
  return absl::OkStatus();
}

ModelFolder ModelRegistry::FolderOf(const State& state,
                                    const std::string& name) {
  if (const auto it = state.found.find(name); it != state.found.end()) {
    return it->second;
  }
  const auto split = SplitVersionedName(name);
  if (!split) return {};
  const auto it = state.found.find(split->first);
  if (it == state.found.end()) return {};
  for (const VersionFolder& folder : it->second) {
    if (folder.version == split->second) return {folder};
  }
  return {};
}

std::string ModelRegistry::Resolve(const State& state,
                                   absl::string_view asked) {
  const std::string name(asked);
  const auto is_ready = [&](const std::string& of) {
    const auto it = state.entries.find(of);
    return it != state.entries.end() && it->second.state == ModelState::kReady;
  };
  const auto split = SplitVersionedName(name);
  if (!split || is_ready(name) || !is_ready(split->first)) return name;
  const Entry& newest = state.entries.find(split->first)->second;
  return newest.info->version == split->second ? split->first : name;
}

ModelStatus ModelRegistry::Snapshot(const State& state, const std::string& name,
                                    const Entry& entry) {
  ModelStatus status = {name, entry.state, entry.failure, entry.info};
  const std::vector<std::string>& names = state.device_names;
  status.device_bytes.resize(names.size());
  if (entry.lease != nullptr) {
    ModelInfo& info = *status.info;
    std::vector<std::string> used;
    info.resident_bytes = 0;
    for (const auto& [device, bytes] : entry.lease->device_bytes()) {
      used.push_back(names[device]);
      status.device_bytes[device] = bytes;
      info.resident_bytes += bytes;
    }
    info.device = absl::StrJoin(used, ",");
  }
  for (const VersionFolder& folder : entry.folder) {
    if (folder.version > 0) status.versions.push_back(folder.version);
  }
  return status;
}

std::vector<ModelStatus> ModelRegistry::List() const {
  std::vector<ModelStatus> models;
  MutexLock lock(state_->mutex);
  for (const auto& [name, entry] : state_->entries) {
    models.push_back(Snapshot(*state_, name, entry));
  }
  return models;
}

std::vector<std::string> ModelRegistry::Names() const {
  std::vector<std::string> names;
  MutexLock lock(state_->mutex);
  for (const auto& [name, entry] : state_->entries) names.push_back(name);
  return names;
}

bool ModelRegistry::Knows(const std::string& name) const {
  MutexLock lock(state_->mutex);
  return state_->entries.count(name) > 0 || !FolderOf(*state_, name).empty();
}

absl::StatusOr<ModelRegistry::Entry*> ModelRegistry::Find(
    State& state, absl::string_view name) {
  const auto it = state.entries.find(std::string(name));
  if (it != state.entries.end()) return &it->second;
  std::vector<std::string> known;
  for (const auto& [other, entry] : state.entries) known.push_back(other);
  return UnknownModelStatus(name, known);
}

absl::StatusOr<ModelStatus> ModelRegistry::Get(absl::string_view asked) const {
  MutexLock lock(state_->mutex);
  const std::string name = Resolve(*state_, asked);
  const auto entry = Find(*state_, name);
  if (entry.ok()) return Snapshot(*state_, name, **entry);
  Entry unread;
  unread.folder = FolderOf(*state_, name);
  if (unread.folder.empty()) return entry.status();
  return Snapshot(*state_, name, unread);
}

absl::StatusOr<std::shared_ptr<const Model>> ModelRegistry::Lease(
    absl::string_view asked) const {
  MutexLock lock(state_->mutex);
  const std::string name = Resolve(*state_, asked);
  const auto entry = Find(*state_, name);
  if (!entry.ok()) {
    return FolderOf(*state_, name).empty()
               ? entry.status()
               : StateStatus(name, ModelState::kUnloaded, absl::OkStatus());
  }
  LIMPID_RETURN_IF_ERROR(StateStatus(name, (*entry)->state, (*entry)->failure));
  (*entry)->last_use = ++state_->num_uses;
  return (*entry)->lease;
}

std::string ModelRegistry::FingerprintOf(const ModelFolder& folder) const {
  std::string print;
  for (const VersionFolder& version : folder) {
    const std::string one = options_.fingerprint(version.path);
    if (!one.empty()) absl::StrAppend(&print, version.version, ":", one);
  }
  return print;
}

std::map<std::string, std::string> ModelRegistry::Changed(bool unread) const {
  std::map<std::string, std::pair<ModelFolder, std::string>> looked;
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
    std::string now = FingerprintOf(seen.first);
    // A folder that is gone is no reason to read it.
    if (!now.empty() && now != seen.second) changed[name] = std::move(now);
  }
  return changed;
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
          now = Snapshot(*state_, name, entry);
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
                                    const std::string& name,
                                    const Reservation& reservation) {
  const std::shared_ptr<State> state = weak.lock();
  if (state == nullptr) return;  // the registry went first
  std::vector<Done> waiting;
  ModelStatus now;
  RegistryObserver* observer = nullptr;
  {
    MutexLock lock(state->mutex);
    Entry& entry = state->entries[name];
    Add(reservation.bytes, -1, entry);
    if (entry.reservation.get() == &reservation) entry.reservation.reset();
    // One that was replaced has gone, or one is left that was.
    if (--entry.num_alive > 0 || entry.state == ModelState::kReady) return;
    entry.state = ModelState::kUnloaded;
    entry.info.reset();
    waiting.swap(entry.waiting);
    now = Snapshot(*state, name, entry);
    observer = state->observer;
  }
  if (observer != nullptr) observer->OnModelChanged(name);
  for (Done& done : waiting) done(now);
}

}  // namespace limpid
