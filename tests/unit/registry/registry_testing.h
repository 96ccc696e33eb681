// SPDX-License-Identifier: Apache-2.0
//
// A registry of two models, "a" and "b", whose engine is a fake.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "server/registry/model_registry.h"
#include "tests/support/fake_engine.h"
#include "tests/support/temporary_repository.h"

namespace limpid::testing {

class CountingObserver final : public RegistryObserver {
 public:
  void OnModelChanged(const std::string&) override { ++num_changes; }
  void OnLoadEnded(const std::string&, absl::Duration,
                   const absl::Status&) override {
    ++num_loads;
  }
  void OnCopied(const std::string& model, int64_t device, absl::Duration,
                const absl::Status& status) override {
    copied = status.ok() ? model + std::to_string(device) : status.ToString();
  }
  void OnCopyDropped(const std::string& model, int64_t device,
                     const std::string& by) override {
    dropped = model + std::to_string(device) + " for " + by;
  }
  void OnEvicted(const std::string& model, const std::string&) override {
    evicted += model;
  }
  std::atomic<int> num_changes{0}, num_loads{0};
  std::string evicted, copied, dropped;
};

class ModelRegistryTest : public ::testing::Test {
 protected:
  ModelRegistryTest() {
    repository_.AddModel("a");
    repository_.AddModel("b");
    Open(Options());
  }

  // With the fake engine and the observer, without a budget.
  ModelRegistry::Options Options() {
    ModelRegistry::Options options;
    options.repository = repository_.path();
    options.load = [this](const std::string& name, const VersionFolder& folder,
                          const Placement& placement) {
      return engine_.Load(name, folder.path, folder.version, placement);
    };
    options.observer = &observer_;
    return options;
  }
  void Open(ModelRegistry::Options options) {
    registry_ = std::make_unique<ModelRegistry>(std::move(options));
    EXPECT_TRUE(registry_->Scan().ok());
  }

  absl::StatusOr<ModelStatus> Load(const std::string& name) {
    std::promise<absl::StatusOr<ModelStatus>> done;
    registry_->Load(name, [&](auto status) { done.set_value(status); });
    return done.get_future().get();
  }
  ModelState State(const std::string& name) {
    return registry_->Get(name)->state;
  }

  TemporaryRepository repository_;
  FakeEngine engine_;
  CountingObserver observer_;
  std::unique_ptr<ModelRegistry> registry_;
};

}  // namespace limpid::testing
