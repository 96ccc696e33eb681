// SPDX-License-Identifier: Apache-2.0
//
// Where models and their copies go on two devices, and what goes for them.
#include "tests/unit/registry/registry_testing.h"

namespace limpid::testing {
namespace {

class ModelDevicesTest : public ModelRegistryTest {
 protected:
  // Two devices with room for `budget` bytes each; models take 4, of which two
  // layers 1 each.
  void Open(int64_t budget, int64_t num_copies = 1) {
    repository_.AddModel("c");
    engine_.device_names = {"cpu:0", "cpu:1"};
    ModelRegistry::Options options = Options();
    options.max_resident_bytes = budget;
    options.estimate_bytes = [](const std::string&) { return 4; };
    options.devices = engine_.device_names;
    options.layer_bytes = [](const std::string&) {
      return std::vector<int64_t>{1, 1};
    };
    options.copy = [this](const Model& model, const std::string& folder,
                          int64_t device) {
      EXPECT_EQ(folder, repository_.path() + "/" + model.info().name);
      if (on_copy_) on_copy_();
      return engine_.Copy(model, folder, device);
    };
    options.drop_copy = [this](const Model& model, int64_t device) {
      return !copies_in_use_ && engine_.DropCopy(model, device);
    };
    options.num_copies = num_copies;
    ModelRegistryTest::Open(std::move(options));
  }
  std::string DevicesOf(const std::string& name) {
    return registry_->Get(name)->info->device;
  }

  std::function<void()> on_copy_;
  bool copies_in_use_ = false;
};

TEST_F(ModelDevicesTest, ModelsGoWhereRoomIs) {
  Open(8);
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(Load(name).ok());
  EXPECT_EQ(DevicesOf("a"), "cpu:0");
  EXPECT_EQ(DevicesOf("b"), "cpu:1");
  EXPECT_EQ(DevicesOf("c"), "cpu:0");
  EXPECT_TRUE(observer_.evicted.empty());
}

TEST_F(ModelDevicesTest, CopiesComeWhereRoomIsAndGoBeforeModels) {
  Open(8);
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(registry_->AddCopy("a").ok());
  EXPECT_EQ(observer_.copied, "a1");
  EXPECT_EQ(DevicesOf("a"), "cpu:0,cpu:1");
  EXPECT_EQ(registry_->Get("a")->info->resident_bytes, 2000);
  EXPECT_EQ(registry_->Get("a")->device_bytes,
            (std::vector<int64_t>{1000, 1000}));
  // On every device already.
  EXPECT_EQ(registry_->AddCopy("a").code(),
            absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(Load("b").ok());
  auto lease = registry_->Lease("b");
  EXPECT_EQ(registry_->AddCopy("b").code(), absl::StatusCode::kOk);
  // Both are full; nobody uses the copies.
  EXPECT_EQ(registry_->AddCopy("a").code(),
            absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(Load("c").ok());
  EXPECT_EQ(observer_.dropped, "a1 for c");
  EXPECT_TRUE(observer_.evicted.empty());
  EXPECT_EQ(DevicesOf("a"), "cpu:0");
  EXPECT_EQ(DevicesOf("c"), "cpu:1");
}

TEST_F(ModelDevicesTest, CopiesInUseStay) {
  Open(4);
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(registry_->AddCopy("a").ok());
  auto lease = registry_->Lease("a");
  copies_in_use_ = true;
  EXPECT_EQ(GetErrorDetails(Load("b").status()).reason, "MODEL_MEMORY_FULL");
  copies_in_use_ = false;
  ASSERT_TRUE(Load("b").ok());
  EXPECT_EQ(DevicesOf("a"), "cpu:0");
}

TEST_F(ModelDevicesTest, AModelGoesWithItsCopies) {
  Open(4);
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(registry_->AddCopy("a").ok());
  registry_->Unload("a", [](auto) {});
  EXPECT_EQ(State("a"), ModelState::kUnloaded);
  ASSERT_TRUE(Load("b").ok());
  ASSERT_TRUE(Load("c").ok());
  EXPECT_TRUE(observer_.evicted.empty());
  EXPECT_NE(DevicesOf("b"), DevicesOf("c"));
}

TEST_F(ModelDevicesTest, AModelThatGoesWhileItIsCopiedTakesTheCopyAlong) {
  Open(4);
  ASSERT_TRUE(Load("a").ok());
  on_copy_ = [this] {
    on_copy_ = nullptr;
    registry_->Unload("a", [](auto) {});
    EXPECT_EQ(State("a"), ModelState::kUnloading);
    EXPECT_EQ(registry_->AddCopy("a").code(), absl::StatusCode::kUnavailable);
  };
  ASSERT_TRUE(registry_->AddCopy("a").ok());
  EXPECT_EQ(State("a"), ModelState::kUnloaded);
  ASSERT_TRUE(Load("b").ok());
  ASSERT_TRUE(Load("c").ok());
}

TEST_F(ModelDevicesTest, AReadAgainModelStartsWithoutCopies) {
  Open(12);
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(registry_->AddCopy("a").ok());
  repository_.AddFile("a/more.json", "1");
  ASSERT_TRUE(Load("a").ok());
  const std::string device = DevicesOf("a");
  EXPECT_TRUE(device == "cpu:0" || device == "cpu:1");
  ASSERT_TRUE(registry_->AddCopy("a").ok());
  EXPECT_EQ(DevicesOf("a"), "cpu:0,cpu:1");
}

TEST_F(ModelDevicesTest, AsManyCopiesAsAreConfigured) {
  Open(8, /*num_copies=*/5);
  const auto loaded = Load("a");
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->info->device, "cpu:0,cpu:1");
}

TEST_F(ModelDevicesTest, LargeModelsAreSplitAndNotCopied) {
  Open(3);
  ASSERT_TRUE(Load("a").ok());
  EXPECT_EQ(DevicesOf("a"), "cpu:0,cpu:1");
  EXPECT_EQ(GetErrorDetails(registry_->AddCopy("a")).reason,
            "MODEL_NOT_COPIED");
  // It takes 3 and 1, and goes from both at once.
  ASSERT_TRUE(Load("b").ok());
  EXPECT_EQ(observer_.evicted, "a");
  EXPECT_EQ(State("a"), ModelState::kUnloaded);
  auto lease = registry_->Lease("b");
  EXPECT_EQ(GetErrorDetails(Load("a").status()).reason, "MODEL_MEMORY_FULL");
}

}  // namespace
}  // namespace limpid::testing
