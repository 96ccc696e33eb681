// SPDX-License-Identifier: Apache-2.0
//
// Which file of a model folder is its tokenizer.
#include "server/input/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/unit/input/tokenizer_testing.h"

namespace limpid {
namespace {

using testing::EndsWith;

constexpr char kJson[] = "tokenizer.json";
constexpr char kModel[] = "tokenizer.model";
constexpr char kRwkv[] = "rwkv_vocab_v20230424.txt";
// What a tokenizer.json made of a tokenizer.model looks like to us.
constexpr char kForeignJson[] = R"({"model": {"type": "BPE",
    "byte_fallback": true, "vocab": {}, "merges": []}})";

class TokenizerOpenTest : public testing::Test {
 protected:
  TokenizerOpenTest() { EXPECT_NE(::mkdtemp(folder_.data()), nullptr); }
  ~TokenizerOpenTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
  }
  void Copy(const std::string& golden, const std::string& name) {
    Write(name, GoldenFile(golden));
  }
  // Size of the vocabulary, which tells the tokenizers apart.
  int64_t Size() {
    const auto tokenizer = Tokenizer::Open(folder_);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return (*tokenizer)->vocabulary_size();
  }
  // "REASON file"
  std::string Error() {
    const ErrorDetails details =
        GetErrorDetails(Tokenizer::Open(folder_).status());
    const auto file = details.metadata.find("file");
    return details.reason + " " +
           (file == details.metadata.end() ? "" : file->second);
  }

  std::string folder_ = testing::TempDir() + "limpid-XXXXXX";
};

constexpr int64_t kJsonSize = 623, kModelSize = 700, kRwkvSize = 746;

TEST_F(TokenizerOpenTest, ReadsEveryKindByItself) {
  EXPECT_EQ(*Tokenizer::Open(folder_), nullptr);
  Copy("tiny-rwkv-world.txt", kRwkv);
  EXPECT_EQ(Size(), kRwkvSize);
  Copy("tiny-gemma.model", kModel);
  EXPECT_EQ(Size(), kModelSize);
  Copy("tiny-neox.json", kJson);
  EXPECT_EQ(Size(), kJsonSize);
}

TEST_F(TokenizerOpenTest, PassesOverAForeignJsonIfAnotherFileIsThere) {
  Write(kJson, kForeignJson);
  EXPECT_THAT(Error(), EndsWith(kJson));
  EXPECT_EQ(Error().substr(0, 21), "TOKENIZER_UNSUPPORTED");
  // A model of one unknown piece that is not BPE: the first file is named.
  Write(kModel, "\x0a\x07\x0a\x03unk\x18\x02");
  EXPECT_THAT(Error(), EndsWith(kJson));
  std::filesystem::remove(folder_ + "/" + kModel);
  Copy("tiny-rwkv-world.txt", kRwkv);
  EXPECT_EQ(Size(), kRwkvSize);
  Copy("tiny-gemma.model", kModel);
  EXPECT_EQ(Size(), kModelSize);
}

TEST_F(TokenizerOpenTest, DamageIsNotPassedOver) {
  Copy("tiny-rwkv-world.txt", kRwkv);
  Write(kModel, "x");
  EXPECT_EQ(Error(), "TOKENIZER_DAMAGED " + folder_ + "/" + kModel);
  Write(kJson, "{");
  EXPECT_EQ(Error(), "TOKENIZER_DAMAGED " + folder_ + "/" + kJson);
  Write(kJson, kForeignJson);
  EXPECT_EQ(Error(), "TOKENIZER_DAMAGED " + folder_ + "/" + kModel);
  std::filesystem::remove(folder_ + "/" + kModel);
  Write(kRwkv, "1 'a'\n");
  EXPECT_EQ(Error(), "TOKENIZER_DAMAGED " + folder_ + "/" + kRwkv);
}

TEST_F(TokenizerOpenTest, RefusesAVocabularyThatIsTooLong) {
  Write(kRwkv, std::string((16 << 20) + 1, '\n'));
  EXPECT_EQ(Error(), "TOKENIZER_DAMAGED " + folder_ + "/" + kRwkv);
}

}  // namespace
}  // namespace limpid
