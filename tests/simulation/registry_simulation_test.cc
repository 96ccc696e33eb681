// SPDX-License-Identifier: Apache-2.0
//
// Random schedules of loads, unloads, changed folders, leases and their return
// against a ModelRegistry with a byte budget. What happens while a model is
// loading is simulated by steps in the middle of the load function.
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/registry/model_registry.h"
#include "tests/simulation/seeds.h"
#include "tests/support/temporary_repository.h"

namespace limpid {
namespace {

using testing::Chance;
using testing::Pick;
using testing::Random;

constexpr int64_t kNumSchedules = 100000;
const std::vector<std::string> kNames = {"a", "b", "c", "d"};

// Bytes of models that really exist.
struct Memory {
  int64_t bytes = 0;
  std::map<std::string, int> num_alive;
};

class CountedModel final : public Model {
 public:
  CountedModel(const std::string& name, int64_t bytes, Memory& memory)
      : memory_(memory) {
    info_.name = name;
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
  RegistrySchedule(uint64_t seed, const std::string& repository)
      : random_(seed), budget_(Pick(random_, 4, 20)) {
    for (const std::string& name : kNames) bytes_[name] = Pick(random_, 1, 8);
    registry_ = std::make_unique<ModelRegistry>(ModelRegistry::Options{
        repository,
        [this](const std::string& name, const std::string&) {
          return LoadModel(name);
        },
        this, &Clock::Real(), budget_,
        [this](const std::string& folder) { return bytes_[NameOf(folder)]; },
        [this](const std::string& folder) {
          return std::to_string(versions_[NameOf(folder)]);
        }});
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
  static std::string NameOf(const std::string& folder) {
    return folder.substr(folder.rfind('/') + 1);
  }

  void Step() {
    const std::string& name = kNames[Pick(random_, 0, 3)];
    switch (Pick(random_, 0, 5)) {
      case 0:
        Load(name);
        break;
      case 5:
        ++versions_[name];
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
    const int version = versions_[name];
    // Who joins a load that is under way gets what that reads.
    const bool alone = depth_ == 0;
    registry_->Load(name, Chance(random_, 0.8), [=, this](const auto& status) {
      ++num_answers_;
      if (!status.ok() || !alone) return;
      EXPECT_GE(newest_[name].second, version) << "a change was missed";
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
    EXPECT_EQ(lease->get(), newest_[name].first) << "an old model is served";
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
      const std::string& name) {
    EXPECT_LE(memory_.bytes + bytes_[name], budget_)
        << "a load began without room";
    const auto before = registry_->Get(name);
    // One that is read again serves meanwhile.
    if (before->state != ModelState::kReady) {
      EXPECT_EQ(before->state, ModelState::kLoading);
      EXPECT_EQ(NumLeases(name), 0);
      EXPECT_EQ(memory_.num_alive[name], 0) << name << " is there twice";
    }
    const int version = versions_[name];
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
    auto model = std::make_shared<CountedModel>(name, bytes_[name], memory_);
    newest_[name] = {model.get(), version};
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
  std::map<std::string, int> versions_;  // of the folders
  std::set<std::string> loading_;
  // Last read, and of which version.
  std::map<std::string, std::pair<const Model*, int>> newest_;
  Memory memory_;
  std::vector<std::shared_ptr<const Model>> leases_;
  std::map<std::string, uint64_t> last_use_;
  uint64_t num_uses_ = 0;
  int64_t num_wishes_ = 0, num_answers_ = 0;
  int depth_ = 0;
  std::unique_ptr<ModelRegistry> registry_;
};

TEST(RegistrySimulationTest, KeepsItsPromisesInRandomSchedules) {
  testing::TemporaryRepository repository;
  for (const std::string& name : kNames) repository.AddModel(name);
  testing::ForEachSeed(kNumSchedules, "the registry", [&](uint64_t seed) {
    RegistrySchedule(seed, repository.path()).Run();
  });
}

}  // namespace
}  // namespace limpid
