// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temporary_repository.h"

namespace limpid {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kAlice[] = "alice-0123456789abcdef";
constexpr char kRoot[] = "root-0123456789abcdef~+/=";

std::vector<std::string> Fields(const absl::Status& status) {
  std::vector<std::string> fields;
  for (const auto& v : GetErrorDetails(status).violations) {
    fields.push_back(v.field);
  }
  return fields;
}

TEST(TokenSetTest, FindsTokensAndTheirRoles) {
  const auto set = TokenSet::Parse(
      "# who may come\n\n alice explain alice-0123456789abcdef\r\n"
      "root\tadmin root-0123456789abcdef~+/=");
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_TRUE(set->Find(kAlice).has_value());
  EXPECT_EQ(set->Find(kAlice)->name, "alice");
  EXPECT_EQ(set->Find(kAlice)->role, Role::kExplain);
  EXPECT_EQ(set->Find(kRoot)->role, Role::kAdmin);
  EXPECT_FALSE(set->Find("").has_value());
  EXPECT_FALSE(set->Find("alice-0123456789abcdeF").has_value());
  EXPECT_FALSE(set->Find("alice-0123456789abcde").has_value());
}

TEST(TokenSetTest, DigestsStandForTokens) {
  // sha256sum of "alice-0123456789abcdef".
  const auto set = TokenSet::Parse(
      "alice explain sha256:"
      "08de70070336baac3db11e5cca05f85f86ebd13d9ba9b67a357084e7fa43532d");
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_TRUE(set->Find(kAlice).has_value());
  EXPECT_FALSE(set->Find(kRoot).has_value());
}

TEST(TokenSetTest, EveryWrongLineIsNamedWithoutItsToken) {
  const auto set = TokenSet::Parse(
      "alice explain\n"
      "bob king secret-secret-secret\n"
      "b@b explain secret-secret-secret\n"
      "carol explain secret\n"
      "dave explain sha256:secret\n");
  EXPECT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Fields(set.status()),
              ElementsAre("line 1", "line 2", "line 3", "line 4", "line 5"));
  EXPECT_THAT(std::string(set.status().message()), Not(HasSubstr("secret")));
}

TEST(TokenSetTest, FilesWithoutTokensAreRefused) {
  EXPECT_FALSE(TokenSet::Parse("").ok());
  EXPECT_FALSE(TokenSet::Parse("# nobody\n").ok());
}

class TokenFileTest : public ::testing::Test {
 protected:
  void Replace(const std::string& text) {
    folder_.AddFile("next", text);
    std::filesystem::rename(folder_.path() + "/next", path_);
  }
  void Open() {
    auto file = TokenFile::Open(path_, [this](const absl::Status& status) {
      reloads_.push_back(status.code());
    });
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }
  absl::StatusCode Try(const std::string& token) {
    return file_->Authenticate("Bearer " + token).status().code();
  }

  testing::TemporaryRepository folder_;
  const std::string path_ = folder_.path() + "/tokens";
  std::unique_ptr<TokenFile> file_;
  std::vector<absl::StatusCode> reloads_;
};

TEST_F(TokenFileTest, HeadersAreReadAsRfc6750Says) {
  Replace("alice explain alice-0123456789abcdef");
  Open();
  const auto reason = [&](const std::string& header) {
    return GetErrorDetails(file_->Authenticate(header).status()).reason;
  };
  EXPECT_EQ(reason(""), "TOKEN_MISSING");
  EXPECT_EQ(reason("Basic alice-0123456789abcdef"), "TOKEN_MALFORMED");
  EXPECT_EQ(reason("Bearer"), "TOKEN_MALFORMED");
  EXPECT_EQ(reason("Bearer two words 0123456789"), "TOKEN_MALFORMED");
  EXPECT_EQ(reason(std::string("Bearer \0 0123456789abcdefgh", 26)),
            "TOKEN_MALFORMED");
  EXPECT_EQ(reason("Bearer nobody-0123456789abcdef"), "TOKEN_UNKNOWN");
  EXPECT_EQ(reason("bearer alice-0123456789abcdef"), "");
}

TEST_F(TokenFileTest, ReplacedFilesCountFromTheNextCallOn) {
  Replace("alice explain alice-0123456789abcdef");
  Open();
  EXPECT_EQ(Try(kAlice), absl::StatusCode::kOk);
  Replace("root admin root-0123456789abcdef~+/=");
  EXPECT_EQ(Try(kAlice), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Try(kRoot), absl::StatusCode::kOk);
  EXPECT_THAT(reloads_, ElementsAre(absl::StatusCode::kOk));
}

TEST_F(TokenFileTest, UnusableFilesChangeNothing) {
  Replace("alice explain alice-0123456789abcdef");
  Open();
  Replace("alice\n");
  EXPECT_EQ(Try(kAlice), absl::StatusCode::kOk);
  EXPECT_EQ(Try(kAlice), absl::StatusCode::kOk);
  std::filesystem::remove(path_);
  EXPECT_EQ(Try(kAlice), absl::StatusCode::kOk);
  EXPECT_THAT(reloads_, ElementsAre(absl::StatusCode::kInvalidArgument,
                                    absl::StatusCode::kNotFound));
  Replace("root admin root-0123456789abcdef~+/=");
  EXPECT_EQ(Try(kAlice), absl::StatusCode::kUnauthenticated);
}

TEST_F(TokenFileTest, FilesThatAreNotThereAreErrors) {
  EXPECT_EQ(TokenFile::Open(path_, nullptr).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(RequireRoleTest, AdminsMayDoEverything) {
  EXPECT_TRUE(RequireRole({"a", Role::kExplain}, Role::kExplain).ok());
  EXPECT_TRUE(RequireRole({"a", Role::kAdmin}, Role::kExplain).ok());
  EXPECT_TRUE(RequireRole({"a", Role::kAdmin}, Role::kAdmin).ok());
  const absl::Status refused = RequireRole({"a", Role::kExplain}, Role::kAdmin);
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(GetErrorDetails(refused).metadata.at("caller"), "a");
}

}  // namespace
}  // namespace limpid
