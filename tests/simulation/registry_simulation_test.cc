// SPDX-License-Identifier: Apache-2.0
//
// Random schedules of loads, unloads, changed folders, new and removed
// versions, copies, leases and their return against a ModelRegistry with a byte
// budget on one device or several. What happens while a model is loading is
// simulated by steps in the middle of the load function.
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/registry/model_registry.h"
#include "tests/simulation/seeds.h"

namespace limpid {
namespace {

using testing::Chance;
using testing::Pick;
using testing::Random;

constexpr int64_t kNumSchedules = 100000;
const std::vector<std::string> kNames = {"a", "b", "c", "d"};
// Those with versions.
const std::set<std::string> kVersioned = {"c", "d"};

// A model's bytes are even, and half of them are its two layers'.
std::vector<int64_t> LayersOf(int64_t bytes) { return {bytes / 4, bytes / 4}; }

// Bytes of models that really exist, by device.
struct Memory {
  std::map<int64_t, int64_t> bytes;
  std::map<std::string, int> num_alive;
};

class CountedModel final : public Model {
 public:
  CountedModel(const std::string& name, int64_t version, int64_t bytes,
               const Placement& placement, Memory& memory)
      : memory_(memory) {
    info_.name = name;
    info_.version = version;
    info_.resident_bytes = bytes;
    int64_t layer = 0, left = bytes;
    const std::vector<int64_t> layers = LayersOf(bytes);
    for (const Placement::Stage& stage : placement.stages) {
      for (int64_t i = 0; i < stage.num_layers && layer < std::ssize(layers);
           ++i) {
        Take(stage.device, layers[layer]);
        left -= layers[layer++];
      }
      devices_.Add(stage.device);
    }
    Take(placement.home(), left);
    ++memory_.num_alive[name];
  }
  ~CountedModel() override {
    for (const auto& [device, bytes] : held_) memory_.bytes[device] -= bytes;
    --memory_.num_alive[info_.name];
  }
  const ModelInfo& info() const override { return info_; }
  const DeviceSet& devices() const override { return devices_; }
  std::map<int64_t, int64_t> device_bytes() const override { return held_; }

  void Copy(int64_t device) const {
    EXPECT_FALSE(devices_.Has(device));
    Take(device, info_.resident_bytes);
    devices_.Add(device);
  }
  void DropCopy(int64_t device) const {
    EXPECT_TRUE(devices_.Has(device));
    Take(device, -info_.resident_bytes);
    held_.erase(device);
    devices_.Remove(device);
  }

 private:
  void Take(int64_t device, int64_t bytes) const {
    held_[device] += bytes;
    memory_.bytes[device] += bytes;
  }

  ModelInfo info_;
  Memory& memory_;
  mutable DeviceSet devices_;
  mutable std::map<int64_t, int64_t> held_;
};

class RegistrySchedule final : private RegistryObserver {
 public:
  explicit RegistrySchedule(uint64_t seed)
      : random_(seed),
        num_devices_(Pick(random_, 1, 3)),
        budget_(Pick(random_, 4, 20)) {
    for (const std::string& name : kNames) {
      bytes_[name] = 2 * Pick(random_, 1, num_devices_ > 1 ? 8 : 4);
      contents_[name][kVersioned.count(name) > 0 ? 1 : 0] = 0;
    }
    ModelRegistry::Options options;
    options.load = [this](const std::string& name, const VersionFolder& folder,
                          const Placement& placement) {
      return LoadModel(name, folder.version, placement);
    };
    options.observer = this;
    options.max_resident_bytes = budget_;
    // A folder's path is its name, and its version behind a slash.
    options.estimate_bytes = [this](const std::string& folder) {
      return bytes_[folder.substr(0, 1)];
    };
    options.layer_bytes = [this](const std::string& folder) {
      return LayersOf(bytes_[folder.substr(0, 1)]);
    };
    options.devices.resize(num_devices_, "cpu");
    options.num_copies = Chance(random_, 0.2) ? 2 : 1;
    options.copy = [this](const Model& model, const std::string&,
                          int64_t device) -> absl::Status {
      EXPECT_LE(memory_.bytes[device] + model.info().resident_bytes, budget_)
          << "a copy began without room";
      copying_.insert(model.info().name);
      StepAround();
      copying_.erase(copying_.find(model.info().name));
      if (Chance(random_, 0.2)) return absl::DataLossError("damaged");
      static_cast<const CountedModel&>(model).Copy(device);
      return absl::OkStatus();
    };
    options.drop_copy = [this](const Model& model, int64_t device) {
      if (Chance(random_, 0.3)) return false;  // it is in use
      static_cast<const CountedModel&>(model).DropCopy(device);
      return true;
    };
    options.fingerprint = [this](const std::string& folder) {
      const auto& versions = contents_[folder.substr(0, 1)];
      const auto it = versions.find(std::stoll(folder.substr(2)));
      return it == versions.end() ? "" : std::to_string(it->second);
    };
    options.find_folders = [this](const std::string&) { return Folders(); };
    registry_ = std::make_unique<ModelRegistry>(std::move(options));
    EXPECT_TRUE(registry_->Scan().ok());
  }

  void Run() {
    const int64_t num_steps = Pick(random_, 10, 40);
    for (int64_t i = 0; i < num_steps; ++i) Step();
    // A drain: when all leases are back, everything can be freed.
    leases_.clear();
    for (const std::string& name : kNames) Unload(name);
    Check();
    for (const auto& [device, bytes] : memory_.bytes) {
      EXPECT_EQ(bytes, 0) << "a model outlives its last lease";
    }
    EXPECT_EQ(num_wishes_, num_answers_) << "a wish had no end, or two";
  }

 private:
  // What the registry sees of the disk.
  absl::StatusOr<std::map<std::string, ModelFolder>> Folders() const {
    std::map<std::string, ModelFolder> folders;
    for (const auto& [name, versions] : contents_) {
      for (auto it = versions.rbegin(); it != versions.rend(); ++it) {
        folders[name].push_back(
            {it->first, name + "/" + std::to_string(it->first)});
      }
    }
    return folders;
  }
  int64_t NewestOf(const std::string& name) const {
    return contents_.at(name).rbegin()->first;
  }

  void ChangeFolder(const std::string& name) {
    std::map<int64_t, int>& versions = contents_[name];
    if (kVersioned.count(name) > 0 && Chance(random_, 0.4)) {
      versions[NewestOf(name) + 1] = 0;
    } else if (versions.size() > 1 && Chance(random_, 0.3)) {
      versions.erase(std::prev(versions.end()));
      ++num_removed_[name];
    } else {
      ++std::next(versions.begin(), Pick(random_, 0, std::ssize(versions) - 1))
            ->second;
    }
  }

  void Step() {
    const std::string& name = kNames[Pick(random_, 0, 3)];
    switch (Pick(random_, 0, 6)) {
      case 6:
        (void)registry_->AddCopy(name);
        break;
      case 0:
        Load(name);
        break;
      case 5:
        ChangeFolder(name);
        break;
      case 1:
        if (Chance(random_, 0.4)) Unload(name);
        break;
      case 2:
      case 3:
        Lease(name);
        break;
      default:
        GiveBack();
    }
    Check();
  }

  void Load(const std::string& name) {
    ++num_wishes_;
    const int64_t version = NewestOf(name);
    const int content = contents_[name][version];
    // Who joins a load that is under way gets what that reads.
    const bool alone = depth_ == 0;
    const int removed_before = num_removed_[name];
    registry_->Load(name, Chance(random_, 0.8), [=, this](const auto& status) {
      ++num_answers_;
      if (!status.ok() || !alone) return;
      // While it was copied it may have been removed, and an older one read.
      if (num_removed_[name] != removed_before) return;
      const Read& read = newest_[name];
      // An older one serves if newer ones are damaged, and it is said.
      if (!status->failure.ok()) return;
      EXPECT_GE(read.version, version) << "a version was missed";
      if (read.version == version) {
        EXPECT_GE(read.content, content) << "a change was missed";
      }
    });
  }
  void Unload(const std::string& name) {
    ++num_wishes_;
    registry_->Unload(name, [this](const auto&) { ++num_answers_; });
  }
  void Lease(const std::string& name) {
    auto lease = registry_->Lease(name);
    EXPECT_EQ(lease.ok(), registry_->Get(name)->state == ModelState::kReady);
    if (!lease.ok()) return;
    EXPECT_EQ(lease->get(), newest_[name].model) << "an old model is served";
    last_use_[name] = ++num_uses_;
    // Some are only looked at.
    if (Chance(random_, 0.7)) leases_.push_back(*std::move(lease));
  }
  void GiveBack() {
    if (leases_.empty()) return;
    std::swap(leases_[Pick(random_, 0, std::ssize(leases_) - 1)],
              leases_.back());
    leases_.pop_back();
  }

  absl::StatusOr<std::shared_ptr<const Model>> LoadModel(
      const std::string& name, int64_t version, const Placement& placement) {
    if (!placement.is_split()) {
      EXPECT_LE(memory_.bytes[placement.home()] + bytes_[name], budget_)
          << "a load began without room";
    }
    const auto before = registry_->Get(name);
    // One that is read again serves meanwhile.
    if (before->state != ModelState::kReady) {
      EXPECT_EQ(before->state, ModelState::kLoading);
      EXPECT_EQ(NumLeases(name), 0);
      EXPECT_EQ(memory_.num_alive[name], 0) << name << " is there twice";
    } else if (contents_[name].count(before->info->version) > 0 &&
               depth_ == 0) {
      EXPECT_GE(version, before->info->version)
          << "an older version is read although a newer one serves";
    }
    // One that has been removed meanwhile is like one that was read before.
    const auto on_disk = contents_[name].find(version);
    const int content = on_disk == contents_[name].end() ? 0 : on_disk->second;
    loading_.insert(name);
    StepAround();
    loading_.erase(name);
    // Whatever happened meanwhile, it did not go.
    EXPECT_EQ(registry_->Get(name)->state, before->state);
    if (Chance(random_, 0.2)) return absl::DataLossError("damaged");
    auto model = std::make_shared<CountedModel>(name, version, bytes_[name],
                                                placement, memory_);
    newest_[name] = {model.get(), version, content};
    last_use_[name] = ++num_uses_;
    return model;
  }

  // What happens while something else is going on.
  void StepAround() {
    if (depth_ >= 2) return;
    ++depth_;
    for (int64_t i = Pick(random_, 0, 3); i > 0; --i) Step();
    --depth_;
  }

  void OnCopied(const std::string&, int64_t, absl::Duration,
                const absl::Status&) override {}
  void OnCopyDropped(const std::string& name, int64_t,
                     const std::string& by) override {
    EXPECT_NE(name, by);
  }
  void OnModelChanged(const std::string&) override {}
  void OnLoadEnded(const std::string&, absl::Duration,
                   const absl::Status&) override {}
  void OnEvicted(const std::string& name, const std::string& by) override {
    EXPECT_NE(name, by);
    EXPECT_EQ(NumLeases(name), 0) << name << " was evicted while in use";
    EXPECT_EQ(memory_.num_alive[name], 0);
    // On several devices it matters where they are, too.
    for (const std::string& other : kNames) {
      if (num_devices_ > 1) break;
      if (other != name && other != by && loading_.count(other) == 0 &&
          NumLeases(other) == 0 &&
          registry_->Get(other)->state == ModelState::kReady) {
        EXPECT_LT(last_use_[name], last_use_[other])
            << name << " went before " << other;
      }
    }
  }

  // Those of a copy that is under way included.
  int64_t NumLeases(const std::string& name) const {
    const auto num_held = std::count_if(
        leases_.begin(), leases_.end(),
        [&](const auto& lease) { return lease->info().name == name; });
    return num_held + static_cast<int64_t>(copying_.count(name));
  }

  void Check() {
    for (const auto& [device, bytes] : memory_.bytes) {
      EXPECT_LE(bytes, budget_);
    }
    for (const std::string& name : kNames) {
      const ModelState state = registry_->Get(name)->state;
      const bool alive = memory_.num_alive[name] > 0;
      // The one that is served, and those that it replaced.
      EXPECT_LE(memory_.num_alive[name], 1 + NumLeases(name));
      if (NumLeases(name) > 0 || state == ModelState::kReady) {
        EXPECT_TRUE(alive) << name << " was freed while in use";
      }
      if (state == ModelState::kUnloading) EXPECT_GT(NumLeases(name), 0);
      if (state == ModelState::kUnloaded || state == ModelState::kFailed) {
        EXPECT_FALSE(alive) << name << " is held for nobody";
      }
    }
  }

  Random random_;
  const int64_t num_devices_;
  const int64_t budget_;
  std::map<std::string, int64_t> bytes_;
  // On disk, by version: how often its files were changed.
  std::map<std::string, std::map<int64_t, int>> contents_;
  std::map<std::string, int> num_removed_;  // versions that it had once
  std::set<std::string> loading_;
  std::multiset<std::string> copying_;
  // What was read last.
  struct Read {
    const Model* model = nullptr;
    int64_t version = 0;
    int content = 0;
  };
  std::map<std::string, Read> newest_;
  Memory memory_;
  std::vector<std::shared_ptr<const Model>> leases_;
  std::map<std::string, uint64_t> last_use_;
  uint64_t num_uses_ = 0;
  int64_t num_wishes_ = 0, num_answers_ = 0;
  int depth_ = 0;
  std::unique_ptr<ModelRegistry> registry_;
};

TEST(RegistrySimulationTest, KeepsItsPromisesInRandomSchedules) {
  testing::ForEachSeed(kNumSchedules, "the registry",
                       [](uint64_t seed) { RegistrySchedule(seed).Run(); });
}

}  // namespace
}  // namespace limpid
