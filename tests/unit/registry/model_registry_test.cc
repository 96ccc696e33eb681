// SPDX-License-Identifier: Apache-2.0
#include "server/registry/model_registry.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>

#include "server/registry/repository_watch.h"
#include "tests/unit/registry/registry_testing.h"

namespace limpid::testing {
namespace {

TEST_F(ModelRegistryTest, LoadsAndLeases) {
  EXPECT_EQ(GetErrorDetails(registry_->Lease("a").status()).reason,
            "MODEL_NOT_LOADED");
  const auto loaded = Load("a");
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->state, ModelState::kReady);
  EXPECT_EQ(loaded->info->num_layers, 2);
  const auto lease = registry_->Lease("a");
  ASSERT_TRUE(lease.ok());
  EXPECT_EQ((*lease)->info().name, "a");
  EXPECT_EQ(State("b"), ModelState::kUnloaded);
  EXPECT_EQ(observer_.num_loads, 1);
  EXPECT_EQ(observer_.num_changes, 2);
  // A ready model is not read again.
  EXPECT_TRUE(Load("a").ok());
  EXPECT_EQ(engine_.num_loads(), 1);
}

TEST_F(ModelRegistryTest, ChangedFoldersAreReadAgainOnRequest) {
  ASSERT_TRUE(Load("a").ok());
  const auto old = registry_->Lease("a");
  repository_.AddFile("a/more.json", "1");
  // Meanwhile the old one serves.
  engine_.on_load = [this](const std::string&) {
    EXPECT_TRUE(registry_->Lease("a").ok());
    EXPECT_EQ(registry_->Get("a")->state, ModelState::kReady);
    std::promise<absl::Status> refused;
    registry_->Unload("a",
                      [&](auto done) { refused.set_value(done.status()); });
    EXPECT_EQ(GetErrorDetails(refused.get_future().get()).reason,
              "MODEL_LOADING");
  };
  ASSERT_TRUE(Load("a").ok());
  EXPECT_EQ(engine_.num_loads(), 2);
  const auto renewed = registry_->Lease("a");
  EXPECT_NE(renewed->get(), old->get());
  EXPECT_EQ((*old)->info().name, "a");
  // Nothing has changed since.
  ASSERT_TRUE(Load("a").ok());
  EXPECT_EQ(engine_.num_loads(), 2);
}

TEST_F(ModelRegistryTest, DamagedChangesLeaveTheOldModelServing) {
  ASSERT_TRUE(Load("a").ok());
  const auto old = registry_->Lease("a");
  repository_.AddFile("a/config.json", "damaged");
  engine_.load_errors["a"] =
      MakeError(absl::StatusCode::kDataLoss, "CHECKPOINT_DAMAGED", "half");
  EXPECT_EQ(Load("a").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(State("a"), ModelState::kReady);
  EXPECT_EQ(GetErrorDetails(registry_->Get("a")->failure).reason,
            "CHECKPOINT_DAMAGED");
  EXPECT_EQ(registry_->Lease("a")->get(), old->get());
  // Tried again, and the reason goes.
  engine_.load_errors.clear();
  ASSERT_TRUE(Load("a").ok());
  EXPECT_TRUE(registry_->Get("a")->failure.ok());
  EXPECT_NE(registry_->Lease("a")->get(), old->get());
}

TEST_F(ModelRegistryTest, UnloadingWaitsForReplacedModelsToo) {
  ASSERT_TRUE(Load("a").ok());
  auto old = registry_->Lease("a");
  repository_.AddFile("a/more.json", "1");
  ASSERT_TRUE(Load("a").ok());
  bool unloaded = false;
  registry_->Unload("a", [&](auto status) { unloaded = status.ok(); });
  EXPECT_FALSE(unloaded);
  EXPECT_EQ(State("a"), ModelState::kUnloading);
  old = absl::CancelledError();
  EXPECT_TRUE(unloaded);
  EXPECT_EQ(State("a"), ModelState::kUnloaded);
}

using RepositoryWatchTest = ModelRegistryTest;

TEST_F(RepositoryWatchTest, ReturnsChangesOnceTheyHaveSettled) {
  ASSERT_TRUE(Load("a").ok());
  RepositoryWatch watch(*registry_, /*unread=*/false);
  EXPECT_TRUE(watch.Look()->empty());
  repository_.AddFile("a/more.json", "1");
  EXPECT_TRUE(watch.Look()->empty());
  repository_.AddFile("a/more.json", "longer");
  EXPECT_TRUE(watch.Look()->empty());
  EXPECT_EQ(*watch.Look(), std::vector<std::string>{"a"});
  ASSERT_TRUE(Load("a").ok());
  EXPECT_TRUE(watch.Look()->empty());
}

TEST_F(RepositoryWatchTest, DoesNotTryTheSameDamageAgain) {
  ASSERT_TRUE(Load("a").ok());
  RepositoryWatch watch(*registry_, /*unread=*/false);
  repository_.AddFile("a/config.json", "damaged");
  engine_.load_errors["a"] = absl::DataLossError("half");
  EXPECT_TRUE(watch.Look()->empty());
  EXPECT_EQ(watch.Look()->size(), 1u);
  EXPECT_FALSE(Load("a").ok());
  EXPECT_TRUE(watch.Look()->empty());
  EXPECT_TRUE(watch.Look()->empty());
  repository_.AddFile("a/config.json", "damaged otherwise");
  EXPECT_TRUE(watch.Look()->empty());
  EXPECT_EQ(watch.Look()->size(), 1u);
}

TEST_F(RepositoryWatchTest, NewFoldersAreForThoseWhoServeAll) {
  RepositoryWatch some(*registry_, /*unread=*/false);
  RepositoryWatch all(*registry_, /*unread=*/true);
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(Load("b").ok());
  repository_.AddModel("new");
  for (RepositoryWatch* watch : {&some, &all}) {
    EXPECT_TRUE(watch->Look()->empty());
  }
  EXPECT_TRUE(some.Look()->empty());
  EXPECT_EQ(*all.Look(), std::vector<std::string>{"new"});
  // One that somebody has unloaded stays so.
  registry_->Unload("b", [](auto) {});
  repository_.AddFile("b/more.json", "1");
  all.Look().IgnoreError();
  EXPECT_EQ(*all.Look(), std::vector<std::string>{"new"});
  repository_.Remove("");
  EXPECT_EQ(GetErrorDetails(all.Look().status()).reason,
            "REPOSITORY_UNREADABLE");
}

class BudgetTest : public ModelRegistryTest {
 protected:
  // Room for `budget` bytes; the models take 4 each.
  void Open(int64_t budget, int64_t bytes = 4) {
    repository_.AddModel("c");
    ModelRegistry::Options options = Options();
    options.max_resident_bytes = budget;
    options.estimate_bytes = [bytes](const std::string&) { return bytes; };
    ModelRegistryTest::Open(std::move(options));
  }
};

TEST_F(BudgetTest, TheLeastRecentlyUsedIdleModelMakesRoom) {
  Open(8);
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(Load("b").ok());
  ASSERT_TRUE(registry_->Lease("a").ok());
  ASSERT_TRUE(Load("c").ok());
  EXPECT_EQ(observer_.evicted, "b");
  EXPECT_EQ(State("a"), ModelState::kReady);
  EXPECT_EQ(State("b"), ModelState::kUnloaded);
  EXPECT_EQ(GetErrorDetails(registry_->Get("b")->failure).reason,
            "MODEL_EVICTED");
  EXPECT_EQ(GetErrorDetails(registry_->Lease("b").status()).reason,
            "MODEL_NOT_LOADED");
}

TEST_F(BudgetTest, AChangedModelNeedsRoomBesideTheOldOne) {
  Open(8);
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(Load("b").ok());
  auto lease = registry_->Lease("b");
  repository_.AddFile("a/more.json", "1");
  EXPECT_EQ(GetErrorDetails(Load("a").status()).reason, "MODEL_MEMORY_FULL");
  EXPECT_EQ(State("a"), ModelState::kReady);
  lease = absl::CancelledError();
  ASSERT_TRUE(Load("a").ok());
  EXPECT_EQ(observer_.evicted, "b");
  // The old one's bytes are free again.
  ASSERT_TRUE(Load("c").ok());
  EXPECT_EQ(State("a"), ModelState::kReady);
}

TEST_F(BudgetTest, ModelsInUseStay) {
  Open(8);
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(Load("b").ok());
  auto first = registry_->Lease("a"), second = registry_->Lease("b");
  const absl::Status full = Load("c").status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetails(full).reason, "MODEL_MEMORY_FULL");
  EXPECT_TRUE(GetErrorDetails(full).retry_after.has_value());
  EXPECT_EQ(State("c"), ModelState::kFailed);
  first = absl::UnknownError("given back");
  EXPECT_TRUE(Load("c").ok());
  EXPECT_EQ(observer_.evicted, "a");
}

TEST_F(BudgetTest, WhatNeverFitsEvictsNobody) {
  Open(8, 9);
  const absl::Status status = Load("a").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetails(status).reason, "MODEL_TOO_LARGE");
  EXPECT_EQ(engine_.num_loads(), 0);
}

TEST_F(BudgetTest, StartupEvictsNobody) {
  Open(4);
  ASSERT_TRUE(Load("a").ok());
  absl::Status refused;
  registry_->Load("b", /*may_evict=*/false,
                  [&](auto status) { refused = status.status(); });
  EXPECT_EQ(GetErrorDetails(refused).reason, "MODEL_MEMORY_FULL");
  EXPECT_EQ(State("a"), ModelState::kReady);
}

TEST_F(BudgetTest, AFailedLoadGivesItsBytesBack) {
  engine_.load_errors["a"] = absl::DataLossError("damaged");
  Open(4);
  EXPECT_FALSE(Load("a").ok());
  EXPECT_TRUE(Load("b").ok());
}

class ModelVersionsTest : public ModelRegistryTest {
 protected:
  ModelVersionsTest() {
    AddVersion(1);
    AddVersion(2);
    EXPECT_TRUE(registry_->Scan().ok());
  }
  void AddVersion(int64_t version) {
    repository_.AddModel("v/" + std::to_string(version));
  }
  void Damage(int64_t version) {
    engine_.load_errors[repository_.path() + "/v/" + std::to_string(version)] =
        MakeError(absl::StatusCode::kDataLoss, "CHECKPOINT_DAMAGED", "half");
  }
  int64_t VersionServed(const std::string& name) {
    const auto lease = registry_->Lease(name);
    return lease.ok() ? (*lease)->info().version : -1;
  }
};

TEST_F(ModelVersionsTest, TheNewestServes) {
  const auto loaded = Load("v");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->name, "v");
  EXPECT_EQ(loaded->info->version, 2);
  EXPECT_EQ(loaded->versions, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(VersionServed("v"), 2);
  EXPECT_TRUE(registry_->Get("a")->versions.empty());
  EXPECT_EQ(registry_->Names(), (std::vector<std::string>{"a", "b", "v"}));
}

TEST_F(ModelVersionsTest, ANewVersionReplacesTheOldWithoutAGap) {
  ASSERT_TRUE(Load("v").ok());
  RepositoryWatch watch(*registry_, /*unread=*/false);
  EXPECT_TRUE(watch.Look()->empty());
  AddVersion(10);
  EXPECT_TRUE(watch.Look()->empty());
  EXPECT_EQ(*watch.Look(), std::vector<std::string>{"v"});
  engine_.on_load = [this](const std::string&) {
    EXPECT_EQ(VersionServed("v"), 2);
  };
  ASSERT_TRUE(Load("v").ok());
  EXPECT_EQ(VersionServed("v"), 10);
  EXPECT_TRUE(watch.Look()->empty());
}

TEST_F(ModelVersionsTest, ADamagedNewestLeavesTheOldOneServingAndSaysSo) {
  ASSERT_TRUE(Load("v").ok());
  const auto old = registry_->Lease("v");
  AddVersion(3);
  Damage(3);
  EXPECT_EQ(Load("v").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(registry_->Lease("v")->get(), old->get());
  const auto status = registry_->Get("v");
  EXPECT_EQ(status->state, ModelState::kReady);
  EXPECT_EQ(status->info->version, 2);
  EXPECT_EQ(status->failure.message(), "version 3: half");
  EXPECT_EQ(GetErrorDetails(status->failure).reason, "CHECKPOINT_DAMAGED");
  // Tried again, and the reason goes.
  engine_.load_errors.clear();
  ASSERT_TRUE(Load("v").ok());
  EXPECT_EQ(VersionServed("v"), 3);
  EXPECT_TRUE(registry_->Get("v")->failure.ok());
}

TEST_F(ModelVersionsTest, AtFirstTheNewestThatCanBeReadServes) {
  AddVersion(3);
  Damage(3);
  const auto loaded = Load("v");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->info->version, 2);
  EXPECT_EQ(loaded->failure.message(), "version 3: half");
  EXPECT_EQ(observer_.num_loads, 2);  // one of them failed
  // Nothing but the damaged one is tried again.
  EXPECT_FALSE(Load("v").ok());
  EXPECT_EQ(observer_.num_loads, 3);
  EXPECT_EQ(VersionServed("v"), 2);
}

TEST_F(ModelVersionsTest, WithoutAReadableVersionTheModelHasFailed) {
  Damage(1);
  Damage(2);
  EXPECT_FALSE(Load("v").ok());
  EXPECT_EQ(State("v"), ModelState::kFailed);
  EXPECT_EQ(registry_->Get("v")->failure.message(), "version 2: half");
}

TEST_F(ModelVersionsTest, RemovingTheNewestGoesBack) {
  ASSERT_TRUE(Load("v").ok());
  repository_.Remove("v/2");
  ASSERT_TRUE(Load("v").ok());
  EXPECT_EQ(VersionServed("v"), 1);
  // With no other left, what serves goes on.
  repository_.Remove("v/1");
  Load("v").IgnoreError();
  EXPECT_EQ(VersionServed("v"), 1);
}

TEST_F(ModelVersionsTest, ADamagedServedVersionStaysInMemory) {
  ASSERT_TRUE(Load("v").ok());
  repository_.AddFile("v/2/config.json", "damaged");
  Damage(2);
  EXPECT_FALSE(Load("v").ok());
  EXPECT_EQ(VersionServed("v"), 2);  // not 1
}

TEST_F(ModelVersionsTest, OlderVersionsThatChangeAreNoReasonToRead) {
  ASSERT_TRUE(Load("v").ok());
  repository_.AddFile("v/1/more.json", "1");
  ASSERT_TRUE(Load("v").ok());
  EXPECT_EQ(engine_.num_loads(), 1);
}

TEST_F(ModelVersionsTest, VersionsAreAskedForByNumber) {
  ASSERT_TRUE(Load("v").ok());
  EXPECT_EQ(VersionServed("v@2"), 2);
  EXPECT_EQ(registry_->Lease("v@2")->get(), registry_->Lease("v")->get());
  EXPECT_EQ(registry_->Get("v@2")->name, "v");
  EXPECT_EQ(registry_->Get("v@1")->state, ModelState::kUnloaded);
  EXPECT_EQ(GetErrorDetails(registry_->Lease("v@1").status()).reason,
            "MODEL_NOT_LOADED");
  for (const char* name : {"v@3", "v@0", "v@02", "a@1", "@1", "v@"}) {
    EXPECT_TRUE(absl::IsNotFound(registry_->Lease(name).status())) << name;
    EXPECT_FALSE(registry_->Knows(name));
  }
}

TEST_F(ModelVersionsTest, AVersionLoadedByItsNameStays) {
  ASSERT_TRUE(registry_->Knows("v@1"));
  const auto loaded = Load("v@1");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->name, "v@1");
  EXPECT_EQ(loaded->info->version, 1);
  ASSERT_TRUE(Load("v").ok());
  EXPECT_EQ(VersionServed("v@1"), 1);
  EXPECT_EQ(VersionServed("v"), 2);
  AddVersion(3);
  ASSERT_TRUE(Load("v").ok());
  EXPECT_EQ(VersionServed("v"), 3);
  EXPECT_EQ(VersionServed("v@1"), 1);
  EXPECT_EQ(registry_->Names(),
            (std::vector<std::string>{"a", "b", "v", "v@1"}));
  registry_->Unload("v@1", [](auto) {});
  EXPECT_EQ(VersionServed("v@1"), -1);
  // A folder that is gone is forgotten.
  repository_.Remove("v/1");
  ASSERT_TRUE(registry_->Scan().ok());
  EXPECT_FALSE(registry_->Knows("v@1"));
}

TEST_F(ModelVersionsTest, AFolderOfThatVeryNameGoesFirst) {
  repository_.AddModel("v@1");
  ASSERT_TRUE(registry_->Scan().ok());
  ASSERT_TRUE(Load("v@1").ok());
  EXPECT_EQ(VersionServed("v@1"), 0);
}

TEST_F(BudgetTest, ANewestThatDoesNotFitNowIsNotReplacedByAnOlderOne) {
  repository_.AddModel("v/1");
  repository_.AddModel("v/2");
  Open(4);
  ASSERT_TRUE(Load("a").ok());
  auto lease = registry_->Lease("a");
  EXPECT_EQ(GetErrorDetails(Load("v").status()).reason, "MODEL_MEMORY_FULL");
  EXPECT_EQ(State("v"), ModelState::kFailed);
  lease = absl::CancelledError();
  ASSERT_TRUE(Load("v").ok());
  EXPECT_EQ(registry_->Get("v")->info->version, 2);
}

TEST_F(ModelRegistryTest, UnknownNamesNameTheKnownOnes) {
  const absl::Status status = registry_->Lease("zebra").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetErrorDetails(status).metadata["known_models"], "a,b");
  EXPECT_EQ(GetErrorDetails(status).violations[0].field, "model");
  EXPECT_EQ(Load("../a").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ModelRegistryTest, ConcurrentLoadsShareOne) {
  std::promise<void> begun, go;
  engine_.on_load = [&](const std::string&) {
    begun.set_value();
    go.get_future().wait();
  };
  std::promise<absl::StatusOr<ModelStatus>> first, second;
  std::thread loader([&] {
    registry_->Load("a", [&](auto status) { first.set_value(status); });
  });
  begun.get_future().wait();
  EXPECT_EQ(GetErrorDetails(registry_->Lease("a").status()).reason,
            "MODEL_LOADING");
  registry_->Load("a", [&](auto status) { second.set_value(status); });
  absl::Status refused;
  registry_->Unload("a", [&](auto status) { refused = status.status(); });
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  go.set_value();
  loader.join();
  EXPECT_TRUE(first.get_future().get().ok());
  EXPECT_TRUE(second.get_future().get().ok());
  EXPECT_EQ(engine_.num_loads(), 1);
}

TEST_F(ModelRegistryTest, FailuresAreKeptAndTriedAgain) {
  engine_.load_errors["a"] =
      MakeError(absl::StatusCode::kDataLoss, "CHECKPOINT_DAMAGED", "cut");
  EXPECT_EQ(Load("a").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(State("a"), ModelState::kFailed);
  EXPECT_EQ(registry_->Get("a")->failure.message(), "cut");
  EXPECT_EQ(GetErrorDetails(registry_->Lease("a").status()).reason,
            "CHECKPOINT_DAMAGED");
  engine_.load_errors.clear();
  EXPECT_TRUE(Load("a").ok());
  EXPECT_EQ(State("a"), ModelState::kReady);
}

TEST_F(ModelRegistryTest, ExceptionsWhileLoadingAreFailures) {
  engine_.on_load = [](const std::string&) {
    throw std::runtime_error("thrown");
  };
  EXPECT_EQ(Load("a").status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(State("a"), ModelState::kFailed);
}

TEST_F(ModelRegistryTest, UnloadWaitsForTheLastLease) {
  ASSERT_TRUE(Load("a").ok());
  auto first = *registry_->Lease("a");
  auto second = first;
  int num_done = 0;
  for (int i = 0; i < 2; ++i) {  // two unloads share one
    registry_->Unload("a", [&](absl::StatusOr<ModelStatus> status) {
      ASSERT_TRUE(status.ok());
      EXPECT_EQ(status->state, ModelState::kUnloaded);
      ++num_done;
    });
  }
  EXPECT_EQ(State("a"), ModelState::kUnloading);
  EXPECT_EQ(GetErrorDetails(registry_->Lease("a").status()).reason,
            "MODEL_UNLOADING");
  EXPECT_EQ(Load("a").status().code(), absl::StatusCode::kUnavailable);
  first.reset();
  EXPECT_EQ(num_done, 0);
  second.reset();
  EXPECT_EQ(num_done, 2);
  EXPECT_EQ(State("a"), ModelState::kUnloaded);
  EXPECT_FALSE(registry_->Get("a")->info.has_value());
  EXPECT_TRUE(Load("a").ok());
}

TEST_F(ModelRegistryTest, UnloadOfWhatIsNotResidentChangesNothing) {
  ModelState state = ModelState::kReady;
  registry_->Unload("b", [&](auto status) { state = status->state; });
  EXPECT_EQ(state, ModelState::kUnloaded);
  EXPECT_EQ(observer_.num_changes, 0);
}

TEST_F(ModelRegistryTest, LeasesOutliveTheRegistry) {
  ASSERT_TRUE(Load("a").ok());
  const auto lease = *registry_->Lease("a");
  registry_.reset();
  EXPECT_EQ(lease->info().name, "a");
}

TEST_F(ModelRegistryTest, NewFoldersAreFoundByLoadAndGoneOnesForgotten) {
  repository_.AddModel("c");
  EXPECT_TRUE(Load("c").ok());
  repository_.Remove("b");
  repository_.Remove("c");
  ASSERT_TRUE(registry_->Scan().ok());
  EXPECT_EQ(registry_->Names(), (std::vector<std::string>{"a", "c"}));
}

}  // namespace
}  // namespace limpid::testing
