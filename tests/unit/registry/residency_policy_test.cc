// SPDX-License-Identifier: Apache-2.0
#include "server/registry/residency_policy.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "server/registry/model_folders.h"
#include "tests/support/temporary_repository.h"

namespace limpid {
namespace {

TEST(ResidencyPolicyTest, WishesInEveryState) {
  using Action = ResidencyAction;
  EXPECT_EQ(OnLoadWish(ModelState::kUnloaded), Action::kStart);
  EXPECT_EQ(OnLoadWish(ModelState::kFailed), Action::kStart);
  EXPECT_EQ(OnLoadWish(ModelState::kLoading), Action::kJoin);
  EXPECT_EQ(OnLoadWish(ModelState::kReady), Action::kNothing);
  EXPECT_EQ(OnLoadWish(ModelState::kUnloading), Action::kRefuse);
  EXPECT_EQ(OnUnloadWish(ModelState::kReady), Action::kStart);
  EXPECT_EQ(OnUnloadWish(ModelState::kUnloading), Action::kJoin);
  EXPECT_EQ(OnUnloadWish(ModelState::kUnloaded), Action::kNothing);
  EXPECT_EQ(OnUnloadWish(ModelState::kFailed), Action::kNothing);
  EXPECT_EQ(OnUnloadWish(ModelState::kLoading), Action::kRefuse);
}

TEST(ResidencyPolicyTest, FailuresKeepCodeReasonAndFacts) {
  ErrorDetails details;
  details.reason = "CHECKPOINT_DAMAGED";
  details.metadata["file"] = "f";
  const absl::Status status =
      StateStatus("m", ModelState::kFailed,
                  MakeError(absl::StatusCode::kDataLoss, "cut", details));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(GetErrorDetails(status).reason, "CHECKPOINT_DAMAGED");
  EXPECT_EQ(GetErrorDetails(status).metadata["file"], "f");
  EXPECT_EQ(GetErrorDetails(status).metadata["model"], "m");
  // "Not found" is for models that are not there.
  EXPECT_EQ(
      StateStatus("m", ModelState::kFailed, absl::NotFoundError("file")).code(),
      absl::StatusCode::kFailedPrecondition);
}

TEST(ResidencyPolicyTest, UnknownNamesAreShownSafely) {
  const absl::Status status =
      UnknownModelStatus("\x1b[2J" + std::string(5000, 'x'), {"a"});
  EXPECT_LT(status.message().size(), 1000u);
  EXPECT_FALSE(absl::StrContains(status.message(), "\x1b"));
}

// `bytes` of models on a device, the first used last.
std::vector<Resident> Idle(const std::vector<int64_t>& bytes) {
  std::vector<Resident> residents;
  for (const int64_t one : bytes) {
    residents.push_back({"r" + std::to_string(residents.size()), one,
                         100 - residents.size(), /*idle=*/true});
  }
  return residents;
}

TEST(ChoosePlacementTest, TakesTheDeviceWithMostRoom) {
  const auto choice =
      ChoosePlacement("m", 3, {}, 10, {Idle({4}), Idle({2}), Idle({6})});
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->placement.home(), 1);
  EXPECT_FALSE(choice->placement.is_split());
  EXPECT_EQ(choice->bytes, (std::vector<int64_t>{0, 3, 0}));
  for (const auto& evicted : choice->evictions) EXPECT_TRUE(evicted.empty());
}

TEST(ChoosePlacementTest, WithoutRoomAsLittleAsCanBeGoes) {
  auto first = Idle({8, 2});
  first[1].idle = false;
  const auto choice = ChoosePlacement("m", 5, {}, 10, {first, Idle({3, 3, 3})});
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->placement.home(), 1);
  ASSERT_EQ(choice->evictions[1].size(), 2u);
  EXPECT_EQ(choice->evictions[1][0].name, "r2");
  // One device's models are in use.
  for (Resident& resident : first) resident.idle = false;
  const auto other = ChoosePlacement("m", 5, {}, 10, {first, Idle({9})});
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->placement.home(), 1);
  EXPECT_EQ(
      GetErrorDetails(ChoosePlacement("m", 5, {}, 10, {first, first}).status())
          .reason,
      "MODEL_MEMORY_FULL");
}

TEST(ChoosePlacementTest, ExtraCopiesGoBeforeModels) {
  auto residents = Idle({4, 4});
  residents.push_back({"copy", 2, /*last_use=*/1000, true, /*extra=*/true});
  const auto evicted = ChooseEvictions("m", 2, 10, residents);
  ASSERT_TRUE(evicted.ok());
  ASSERT_EQ(evicted->size(), 1u);
  EXPECT_EQ((*evicted)[0].name, "copy");
}

TEST(ChoosePlacementTest, WhatIsLargerThanADeviceIsSplitEvenly) {
  // 4 shared, 6 layers of 3.
  const std::vector<int64_t> layers(6, 3);
  const auto choice =
      ChoosePlacement("m", 22, layers, 12, {Idle({1}), {}, Idle({2})});
  ASSERT_TRUE(choice.ok()) << choice.status();
  const auto& stages = choice->placement.stages;
  ASSERT_EQ(stages.size(), 2u);
  EXPECT_EQ(stages[0].device, 1);  // most room
  EXPECT_EQ(stages[0].num_layers, 2);
  EXPECT_EQ(stages[1].device, 0);
  EXPECT_EQ(stages[1].num_layers, 4);
  EXPECT_EQ(choice->bytes, (std::vector<int64_t>{12, 10, 0}));
  EXPECT_EQ(choice->evictions[0].size(), 1u);
}

TEST(ChoosePlacementTest, WhatNeverFitsSaysSo) {
  const std::vector<int64_t> layers(6, 3);
  for (const int64_t budget : {2, 3, 6}) {
    const absl::Status status =
        ChoosePlacement("m", 22, layers, budget, {{}, {}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << budget;
    EXPECT_EQ(GetErrorDetails(status).reason, "MODEL_TOO_LARGE");
  }
}

TEST(ModelFoldersTest, TakesFoldersThatHoldModelsOnly) {
  testing::TemporaryRepository repository;
  repository.AddModel("config-only");
  repository.AddFile("weights/part.safetensors", "");
  repository.AddFile("notes/readme.md", "");
  repository.AddFile(".hidden/config.json", "");
  repository.AddFile("file.safetensors", "");
  const auto folders = FindModelFolders(repository.path());
  ASSERT_TRUE(folders.ok());
  ASSERT_EQ(folders->size(), 2u);
  EXPECT_TRUE(folders->count("config-only"));
  EXPECT_TRUE(folders->count("weights"));
}

TEST(ModelFoldersTest, FoldersOfNumberedFoldersHaveVersions) {
  testing::TemporaryRepository repository;
  for (const char* name :
       {"v/1", "v/2", "v/10", "v/007", "v/0", "v/-3", "v/beta", "both/1"}) {
    repository.AddModel(name);
  }
  repository.AddModel("both");
  repository.AddFile("v/11/readme.md", "");
  repository.AddFile("none/a/config.json", "{}");
  const auto folders = FindModelFolders(repository.path());
  ASSERT_TRUE(folders.ok());
  ASSERT_EQ(folders->size(), 2u);
  std::vector<int64_t> versions;
  for (const VersionFolder& folder : folders->at("v")) {
    versions.push_back(folder.version);
    EXPECT_EQ(folder.path,
              repository.path() + "/v/" + std::to_string(folder.version));
  }
  EXPECT_EQ(versions, (std::vector<int64_t>{10, 2, 1}));
  // A model's own files make it a model without versions.
  ASSERT_EQ(folders->at("both").size(), 1u);
  EXPECT_EQ(folders->at("both")[0].version, 0);
}

TEST(ModelFoldersTest, NamesAreUtf8WithoutControlCharacters) {
  EXPECT_TRUE(IsModelName("mamba-130m"));
  EXPECT_TRUE(IsModelName("\xC3\xA9"));
  EXPECT_FALSE(IsModelName("\xC3"));
  EXPECT_FALSE(IsModelName("\xED\xA0\x80"));
  EXPECT_FALSE(IsModelName("a\nb"));
  EXPECT_FALSE(IsModelName(""));
}

TEST(ModelFoldersTest, MissingRepositoryIsAnError) {
  const auto folders = FindModelFolders("/no/such/folder");
  EXPECT_EQ(folders.status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace limpid
