// SPDX-License-Identifier: Apache-2.0
//
// The models of a repository: their states, who loads them, and leases for
// those who use them.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/models/model.h"
#include "server/registry/model_folders.h"
#include "server/registry/residency_policy.h"
#include "server/registry/version_policy.h"

namespace limpid {

// A model at one moment.
struct ModelStatus {
  std::string name;
  ModelState state = ModelState::kUnloaded;
  // kFailed: why; kUnloaded: why it was evicted, if it was; kReady: why its
  // changed folder or a newer version could not be read, if it could not.
  absl::Status failure;
  // While resident: kReady and kUnloading. `device` and `resident_bytes` are
  // those of all copies.
  std::optional<ModelInfo> info;
  // Of each device.
  std::vector<int64_t> device_bytes = {};
  // In the repository, newest first; empty: the folder has no versions.
  std::vector<int64_t> versions = {};
};

// Told of changes after they have happened, without a lock held, so that
// notices of one model can overtake each other: ask Get for the newest state.
// Must be thread-safe and fast.
class RegistryObserver {
 public:
  virtual ~RegistryObserver() = default;
  virtual void OnModelChanged(const std::string& model) = 0;
  // A load has ended, well or not.
  virtual void OnLoadEnded(const std::string& model, absl::Duration took,
                           const absl::Status& status) = 0;
  // An idle model was freed to make room for another.
  virtual void OnEvicted(const std::string& model, const std::string& by) = 0;
  // A further copy of a model has come to a device, or has not.
  virtual void OnCopied(const std::string& model, int64_t device,
                        absl::Duration took, const absl::Status& status) = 0;
  // One was freed to make room for another model.
  virtual void OnCopyDropped(const std::string& model, int64_t device,
                             const std::string& by) = 0;
};

// Models are known by their folders' names. One with versions serves the newest
// that can be read. NAME@VERSION stands for that version where it is resident:
// as the newest one, or because it was loaded by that name; then it is a model
// of its own, which stays whatever newer versions come.
//
// Thread-safe. Work is done on the threads of its callers.
class ModelRegistry {
 public:
  using LoadFunction =
      std::function<absl::StatusOr<std::shared_ptr<const Model>>(
          const std::string& name, const VersionFolder& folder,
          const Placement& placement)>;
  using Done = std::function<void(absl::StatusOr<ModelStatus>)>;

  struct Options {
    std::string repository;
    LoadFunction load;
    RegistryObserver* observer = nullptr;  // null: nobody
    const Clock* clock = &Clock::Real();
    // Of all models that are resident or being loaded on one device. Bytes are
    // reserved before a load begins, by what `estimate_bytes` says; needed with
    // a budget or several devices only.
    int64_t max_resident_bytes = std::numeric_limits<int64_t>::max();
    std::function<absl::StatusOr<int64_t>(const std::string& folder)>
        estimate_bytes = nullptr;
    // Names, by index.
    std::vector<std::string> devices = {"cpu"};
    // As `estimate_bytes` for each layer, and how copies come to other devices
    // and go; all as the engine's. Needed with several devices only.
    std::function<absl::StatusOr<std::vector<int64_t>>(
        const std::string& folder)>
        layer_bytes = nullptr;
    std::function<absl::Status(const Model& model, const std::string& folder,
                               int64_t device)>
        copy = nullptr;
    std::function<bool(const Model& model, int64_t device)> drop_copy = nullptr;
    // Copies of a model, each on a device of its own, that every load makes; no
    // more than there is room for.
    int64_t num_copies = 1;
    // See FolderFingerprint and FindModelFolders.
    std::function<std::string(const std::string& folder)> fingerprint =
        FolderFingerprint;
    std::function<absl::StatusOr<std::map<std::string, ModelFolder>>(
        const std::string& repository)>
        find_folders = FindModelFolders;
  };

  explicit ModelRegistry(Options options);
  // No call may be running; leases may still be out.
  ~ModelRegistry();
  ModelRegistry(const ModelRegistry&) = delete;
  ModelRegistry& operator=(const ModelRegistry&) = delete;

  // Looks for model folders again: new ones are added, those that are gone and
  // not resident are forgotten. Errors as FindModelFolders.
  absl::Status Scan();

  // Sorted by name.
  std::vector<ModelStatus> List() const;
  // NOT_FOUND, see UnknownModelStatus.
  absl::StatusOr<ModelStatus> Get(absl::string_view name) const;
  std::vector<std::string> Names() const;
  // Whether a name can be loaded, as far as the last Scan has seen.
  bool Knows(const std::string& name) const;

  // The model for as long as the pointer lives; errors as UnknownModelStatus
  // and StateStatus. Leases may outlive the registry.
  absl::StatusOr<std::shared_ptr<const Model>> Lease(
      absl::string_view name) const;

  // Makes a model resident and calls `done` once with its state, or with why
  // that failed. A model that is ready is read again if its folder or its
  // versions have changed since, see ChooseVersion: the old one serves until
  // the new one is there, and goes on if that fails; the budget must hold both.
  // If the budget leaves no room, idle models are evicted, the least recently
  // used first; see ChooseEvictions for refusals, which leave a model that was
  // not ready kFailed. Loads on the calling thread, which takes as long as it
  // takes, unless another thread is loading the same model: then it returns at
  // once and that thread calls `done`. Looks at the repository first.
  // UNAVAILABLE while it is being unloaded.
  void Load(const std::string& name, Done done) {
    Load(name, /*may_evict=*/true, std::move(done));
  }
  void Load(const std::string& name, bool may_evict, Done done);

  // Refuses new leases, and calls `done` once when the last one is gone and
  // the model is freed; never blocks. UNAVAILABLE while it is being loaded, the
  // first time or again.
  void Unload(const std::string& name, Done done);

  // Brings a further copy of a ready model to the device with most room that
  // has none; nothing goes for it. Works on the calling thread.
  // RESOURCE_EXHAUSTED, reason MODEL_MEMORY_FULL, if there is no room;
  // FAILED_PRECONDITION if the model is not ready, is being copied or read
  // again, is on every device already, or is itself split over several.
  absl::Status AddCopy(const std::string& name);

  // Fingerprints, by name, of folders that are not as they were when they were
  // last read, well or not; those that were never read only if `unread`. Models
  // that somebody has unloaded are left out.
  std::map<std::string, std::string> Changed(bool unread) const;

 private:
  // What a model holds of the budgets, by device; changes with its copies.
  // Under the lock of State.
  struct Reservation {
    std::vector<int64_t> bytes;
    Placement placement;
    std::map<int64_t, int64_t> copies;  // of `bytes`, those of further copies
  };
  struct Entry {
    ModelFolder folder;
    ModelState state = ModelState::kUnloaded;
    absl::Status failure;
    std::shared_ptr<const Model> lease;  // kReady only
    std::optional<ModelInfo> info;
    std::vector<Done> waiting;  // for the end of a load or an unload
    int num_alive = 0;          // `lease`, and those it has replaced
    // Of the budgets, by device, for all that are alive or being loaded.
    std::vector<int64_t> reserved;
    // For `lease` and its copies.
    std::shared_ptr<Reservation> reservation;
    std::string served_path;  // of `lease`
    bool copying = false;
    uint64_t last_use = 0;
    // Of all that `folder` has: when its newest was read well, and when it was
    // read last, well or not.
    std::string fingerprint;
    std::string last_fingerprint;
    std::string served_fingerprint;  // of the version that `lease` is
    bool reloading = false;          // kReady only: another one is being read
  };
  // What outlives the registry in the leases that are still out.
  struct State {
    explicit State(std::vector<std::string> names)
        : device_names(std::move(names)) {}
    const std::vector<std::string> device_names;
    mutable Mutex mutex;
    std::map<std::string, Entry, std::less<>> entries LIMPID_GUARDED_BY(mutex);
    std::map<std::string, ModelFolder> found LIMPID_GUARDED_BY(mutex);
    RegistryObserver* observer LIMPID_GUARDED_BY(mutex) = nullptr;
    uint64_t num_uses LIMPID_GUARDED_BY(mutex) = 0;
  };

  static ModelStatus Snapshot(const State& state, const std::string& name,
                              const Entry& entry);
  static absl::StatusOr<Entry*> Find(State& state, absl::string_view name)
      LIMPID_REQUIRES(state.mutex);
  // Where a name's files are, NAME@VERSION included; empty: not known.
  static ModelFolder FolderOf(const State& state, const std::string& name)
      LIMPID_REQUIRES(state.mutex);
  // NAME for a NAME@VERSION that is served by that alone, else the name.
  static std::string Resolve(const State& state, absl::string_view asked)
      LIMPID_REQUIRES(state.mutex);
  std::string FingerprintOf(const ModelFolder& folder) const;
  static void OnLastLeaseGone(const std::weak_ptr<State>& weak,
                              const std::string& name,
                              const Reservation& reservation);
  // Whether a ready model's folder is another than the one that was read.
  bool FolderChanged(const std::string& name) const;
  // What came of reading a model's folder.
  struct Reading {
    VersionChoice choice;
    absl::StatusOr<std::shared_ptr<const Model>> loaded =
        absl::UnknownError("");
    // Of what was loaded.
    std::shared_ptr<Reservation> reservation;
    std::string path;
    std::string fingerprint;  // of the whole folder
  };
  Reading Read(const std::string& name, const ModelFolder& folder,
               const std::optional<ServedVersion>& served, bool may_evict);
  // Takes a loading model's bytes from the budgets of the devices where it is
  // to go; frees others for that.
  absl::StatusOr<std::shared_ptr<Reservation>> Reserve(
      const std::string& name, const std::string& folder, bool may_evict);
  // What each device holds. Copies in `kept`, by model and device, may not go.
  using CopyNames = std::set<std::pair<std::string, int64_t>>;
  static std::vector<std::vector<Resident>> Residents(const State& state,
                                                      bool may_evict,
                                                      const CopyNames& kept)
      LIMPID_REQUIRES(state.mutex);
  // A model, or a copy of one, that has to go from a device.
  struct Leaving {
    std::string name;
    int64_t device = 0;
    bool is_copy = false;
    std::shared_ptr<const Model> model;
    std::shared_ptr<Reservation> reservation;  // of a copy
  };
  static std::vector<Leaving> TakeLeaving(State& state,
                                          const PlacementChoice& choice,
                                          const std::string& by)
      LIMPID_REQUIRES(state.mutex);
  // Frees a copy and gives its bytes back; false if it is in use.
  bool DropCopy(const Leaving& copy);
  static void Add(const std::vector<int64_t>& bytes, int64_t sign,
                  Entry& entry);
  void FinishLoad(const std::string& name, absl::Duration took,
                  Reading reading);

  const Options options_;
  std::shared_ptr<State> state_;
};

}  // namespace limpid
