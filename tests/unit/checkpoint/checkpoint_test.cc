// SPDX-License-Identifier: Apache-2.0
#include "server/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace limpid {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "limpid-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    Write("config.json", "{}");
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << text;
  }
  void WriteShard(const std::string& name,
                  const std::vector<std::string>& tensors) {
    std::map<std::string, TensorView> views;
    for (const std::string& tensor : tensors) {
      views[tensor] = {DType::kUint8,
                       {static_cast<int64_t>(tensor.size())},
                       std::as_bytes(std::span(tensor))};
    }
    ASSERT_TRUE(WriteSafetensors(folder_ + "/" + name, views, {}).ok());
  }
  void WriteIndex(const std::string& map) {
    Write("model.safetensors.index.json",
          R"({"metadata": {"total_size": 4}, "weight_map": )" + map + "}");
  }
  void ExpectError(absl::StatusCode code, const std::string& reason,
                   const std::string& file, const std::string& what) {
    const absl::Status status = Checkpoint::Open(folder_).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, reason) << status;
    EXPECT_EQ(GetErrorDetails(status).metadata["file"],
              file.empty() ? folder_ : folder_ + "/" + file);
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  }
  void ExpectDamaged(const std::string& file, const std::string& what) {
    ExpectError(absl::StatusCode::kDataLoss, "CHECKPOINT_DAMAGED", file, what);
  }

  std::string folder_;
};

TEST_F(CheckpointTest, OpensASingleFile) {
  WriteShard("model.safetensors", {"a", "bb"});
  Write("config.json", "{\"x\": 1}");
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensors().size(), 2u);
  EXPECT_EQ(checkpoint->tensors().at("bb").data.size(), 2u);
  EXPECT_EQ(checkpoint->config(), "{\"x\": 1}");
  EXPECT_EQ(checkpoint->folder(), folder_);
  EXPECT_EQ(checkpoint->FileOf("a"), "model.safetensors");
  EXPECT_EQ(checkpoint->FileOf("none"), "");
}

TEST_F(CheckpointTest, OpensShards) {
  WriteShard("m-1.safetensors", {"a", "bb"});
  WriteShard("m-2.safetensors", {"ccc"});
  WriteIndex(R"({"a": "m-1.safetensors", "bb": "m-1.safetensors",
                 "ccc": "m-2.safetensors"})");
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensors().size(), 3u);
  EXPECT_EQ(checkpoint->FileOf("bb"), "m-1.safetensors");
  EXPECT_EQ(checkpoint->FileOf("ccc"), "m-2.safetensors");
  EXPECT_EQ(std::to_integer<char>(checkpoint->tensors().at("ccc").data[0]),
            'c');
}

TEST_F(CheckpointTest, RefusesShardsThatDisagreeWithTheIndex) {
  WriteShard("1", {"a"});
  WriteShard("2", {"b"});
  WriteIndex(R"({"a": "1", "b": "2", "c": "2"})");
  ExpectDamaged("2", "tensor c");
  WriteIndex(R"({"a": "1", "b": "1"})");
  ExpectDamaged("1", "tensor b");
  WriteIndex(R"({"a": "2", "b": "1"})");
  EXPECT_TRUE(absl::IsDataLoss(Checkpoint::Open(folder_).status()));
  WriteShard("2", {"a", "b"});
  WriteIndex(R"({"a": "1", "b": "2"})");
  ExpectDamaged("2", "is in 1 too");
  WriteShard("1", {"a", "extra"});
  WriteShard("2", {"b"});
  ExpectDamaged("1", "tensor extra");
}

TEST_F(CheckpointTest, NamesTheMissingShard) {
  WriteShard("1", {"a"});
  WriteIndex(R"({"a": "1", "b": "2.safetensors"})");
  ExpectDamaged("2.safetensors", "the shard is missing");
}

TEST_F(CheckpointTest, NamesTheDamagedShard) {
  WriteShard("1", {"a"});
  Write("2", "not a tensor file");
  WriteIndex(R"({"a": "1", "b": "2"})");
  ExpectDamaged("2", "header");
}

TEST_F(CheckpointTest, RefusesShardsOutsideTheFolder) {
  for (const std::string name : {"../x", "/etc/passwd", "a/b", "a\\\\b", "..",
                                 ".", "", "a..b", "x\\u0000y"}) {
    SCOPED_TRACE(name);
    WriteIndex("{\"a\": \"" + name + "\"}");
    ExpectDamaged("model.safetensors.index.json", "not a plain file name");
  }
}

TEST_F(CheckpointTest, RefusesADamagedIndex) {
  for (const std::string map : {"{}", "[]", "7", "{\"a\": 1}", "{"}) {
    SCOPED_TRACE(map);
    WriteIndex(map);
    ExpectDamaged("model.safetensors.index.json", "");
  }
  Write("model.safetensors.index.json", "[]");
  ExpectDamaged("model.safetensors.index.json", "not a JSON object");
  Write("model.safetensors.index.json", std::string(1'000'000, '['));
  ExpectDamaged("model.safetensors.index.json", "nested");
}

TEST_F(CheckpointTest, TellsWhatIsMissing) {
  ExpectError(absl::StatusCode::kNotFound, "CHECKPOINT_MISSING", "", "neither");
  Write("pytorch_model.bin", "x");
  ExpectError(absl::StatusCode::kFailedPrecondition, "CHECKPOINT_IS_PICKLE",
              "pytorch_model.bin", "convert");
  WriteShard("model.safetensors", {"a"});
  EXPECT_TRUE(Checkpoint::Open(folder_).ok());
  fs::remove(folder_ + "/config.json");
  ExpectError(absl::StatusCode::kNotFound, "CHECKPOINT_MISSING", "",
              "config.json");
  folder_ += "/none";
  ExpectError(absl::StatusCode::kNotFound, "CHECKPOINT_MISSING", "",
              "no such model folder");
}

TEST_F(CheckpointTest, DigestIsOfEveryByte) {
  WriteShard("model.safetensors", {"a"});
  const auto digest = [this] { return *Checkpoint::Open(folder_)->Digest(); };
  const std::string first = digest();
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(first.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(digest(), first);
  Write("README.md", "is not part of it");
  EXPECT_EQ(digest(), first);

  Write("tokenizer.json", "");
  const std::string with_tokenizer = digest();
  EXPECT_NE(with_tokenizer, first);
  Write("tokenizer.json", "x");
  EXPECT_NE(digest(), with_tokenizer);
  fs::remove(folder_ + "/tokenizer.json");
  EXPECT_EQ(digest(), first);

  Write("config.json", "{ }");
  EXPECT_NE(digest(), first);
  Write("config.json", "{}");
  WriteShard("model.safetensors", {"b"});
  EXPECT_NE(digest(), first);
}

TEST_F(CheckpointTest, DigestIsStable) {
  // config.json "{}" and an empty set of tensors, computed by hand with
  // sha256 over name, NUL, size (8 bytes, little-endian) and bytes.
  WriteShard("model.safetensors", {});
  EXPECT_EQ(*Checkpoint::Open(folder_)->Digest(),
            "1dcd5006bbf773f504a8e755d81e8ede"
            "b5644bbedc4f62787af3196aca52e50e");
}

}  // namespace
}  // namespace limpid
