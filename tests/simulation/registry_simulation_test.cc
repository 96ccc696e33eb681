// SPDX-License-Identifier: Apache-2.0
//
// Random schedules of loads, unloads, changed folders, new and removed
// versions, leases and their return against a ModelRegistry with a byte budget.
// What happens while a model is loading is simulated by steps in the middle of
// the load function.
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

// Bytes of models that really exist.
struct Memory {
  int64_t bytes = 0;
  std::map<std::string, int> num_alive;
};

class CountedModel final : public Model {
 public:
  CountedModel(const std::string& name, int64_t version, int64_t bytes,
               Memory& memory)
      : memory_(memory) {
    info_.name = name;
    info_.version = version;
    info_.resident_bytes = bytes;
    memory_.bytes += bytes;
    ++memory_.num_alive[name];
  }
  ~CountedModel() override {
    memory_.bytes -= info_.resident_bytes;
    --memory_.num_alive[info_.name];
  }
  const ModelInfo& info() const override { return info_; }

 private:
  ModelInfo info_;
  Memory& memory_;
};

class RegistrySchedule final : private RegistryObserver {
 public:
  explicit RegistrySchedule(uint64_t seed)
      : random_(seed), budget_(Pick(random_, 4, 20)) {
    for (const std::string& name : kNames) {
      bytes_[name] = Pick(random_, 1, 8);
      contents_[name][kVersioned.count(name) > 0 ? 1 : 0] = 0;
    }
    ModelRegistry::Options options;
    options.load = [this](const std::string& name,
                          const VersionFolder& folder) {
      return LoadModel(name, folder.version);
    };
    options.observer = this;
    options.max_resident_bytes = budget_;
    // A folder's path is its name, and its version behind a slash.
    options.estimate_bytes = [this](const std::string& folder) {
      return bytes_[folder.substr(0, 1)];
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
    EXPECT_EQ(memory_.bytes, 0) << "a model outlives its last lease";
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
    } else {
      ++std::next(versions.begin(), Pick(random_, 0, std::ssize(versions) - 1))
            ->second;
    }
  }

  void Step() {
    const std::string& name = kNames[Pick(random_, 0, 3)];
    switch (Pick(random_, 0, 5)) {
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
    registry_->Load(name, Chance(random_, 0.8), [=, this](const auto& status) {
      ++num_answers_;
      if (!status.ok() || !alone) return;
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
      const std::string& name, int64_t version) {
    EXPECT_LE(memory_.bytes + bytes_[name], budget_)
        << "a load began without room";
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
    if (depth_ < 2) {
      ++depth_;
      for (int64_t i = Pick(random_, 0, 3); i > 0; --i) Step();
      --depth_;
    }
    loading_.erase(name);
    // Whatever happened meanwhile, it did not go.
    EXPECT_EQ(registry_->Get(name)->state, before->state);
    if (Chance(random_, 0.2)) return absl::DataLossError("damaged");
    auto model =
        std::make_shared<CountedModel>(name, version, bytes_[name], memory_);
    newest_[name] = {model.get(), version, content};
    last_use_[name] = ++num_uses_;
    return model;
  }

  void OnModelChanged(const std::string&) override {}
  void OnLoadEnded(const std::string&, absl::Duration,
                   const absl::Status&) override {}
  void OnEvicted(const std::string& name, const std::string& by) override {
    EXPECT_NE(name, by);
    EXPECT_EQ(NumLeases(name), 0) << name << " was evicted while in use";
    EXPECT_EQ(memory_.num_alive[name], 0);
    for (const std::string& other : kNames) {
      if (other != name && other != by && loading_.count(other) == 0 &&
          NumLeases(other) == 0 &&
          registry_->Get(other)->state == ModelState::kReady) {
        EXPECT_LT(last_use_[name], last_use_[other])
            << name << " went before " << other;
      }
    }
  }

  int64_t NumLeases(const std::string& name) const {
    return std::count_if(
        leases_.begin(), leases_.end(),
        [&](const auto& lease) { return lease->info().name == name; });
  }

  void Check() {
    EXPECT_LE(memory_.bytes, budget_);
    for (const std::string& name : kNames) {
      const ModelState state = registry_->Get(name)->state;
      const bool alive = memory_.num_alive[name] > 0;
      // The one that is served, and those that it replaced.
      EXPECT_LE(memory_.num_alive[name], 1 + NumLeases(name));
      if (NumLeases(name) > 0) EXPECT_TRUE(alive) << "freed while in use";
      if (state == ModelState::kReady) EXPECT_TRUE(alive);
      if (state == ModelState::kUnloading) EXPECT_GT(NumLeases(name), 0);
      if (state == ModelState::kUnloaded || state == ModelState::kFailed) {
        EXPECT_FALSE(alive) << name << " is held for nobody";
      }
    }
  }

  Random random_;
  const int64_t budget_;
  std::map<std::string, int64_t> bytes_;
  // On disk, by version: how often its files were changed.
  std::map<std::string, std::map<int64_t, int>> contents_;
  std::set<std::string> loading_;
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
