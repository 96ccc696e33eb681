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
