// SPDX-License-Identifier: Apache-2.0
#include "server/base/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

namespace limpid {
namespace {

namespace fs = std::filesystem;

class MappedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "limpid-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& bytes) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  static std::string Text(const MappedFile& file) {
    return std::string(reinterpret_cast<const char*>(file.bytes().data()),
                       file.bytes().size());
  }

  std::string folder_;
};

TEST_F(MappedFileTest, ShowsTheBytes) {
  const std::string bytes("a\0b\n", 4);
  const auto file = MappedFile::Open(Write("f", bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(Text(*file), bytes);
}

TEST_F(MappedFileTest, EmptyFileIsEmptySpan) {
  const auto file = MappedFile::Open(Write("f", ""));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->bytes().empty());
}

TEST_F(MappedFileTest, OutlivesTheName) {
  const std::string path = Write("f", "still here");
  const auto file = MappedFile::Open(path);
  fs::remove(path);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(Text(*file), "still here");
}

TEST_F(MappedFileTest, Moves) {
  auto first = MappedFile::Open(Write("1", "first"));
  auto second = MappedFile::Open(Write("2", "second"));
  ASSERT_TRUE(first.ok() && second.ok());
  MappedFile moved = *std::move(first);
  EXPECT_EQ(Text(moved), "first");
  moved = *std::move(second);
  EXPECT_EQ(Text(moved), "second");
  MappedFile& self = moved;
  moved = std::move(self);
  EXPECT_EQ(Text(moved), "second");
}

TEST_F(MappedFileTest, MissingFileIsNotFound) {
  const std::string path = folder_ + "/none";
  for (const absl::Status& status :
       {MappedFile::Open(path).status(), ReadFile(path, 10).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_NE(std::string(status.message()).find(path), std::string::npos);
    EXPECT_EQ(GetErrorDetails(status).metadata.at("file"), path);
  }
}

TEST_F(MappedFileTest, NameWithNulIsNotFound) {
  const std::string path = Write("f", "x") + std::string("\0y", 2);
  EXPECT_TRUE(absl::IsNotFound(MappedFile::Open(path).status()));
}

TEST_F(MappedFileTest, OnlyRegularFiles) {
  EXPECT_TRUE(absl::IsDataLoss(MappedFile::Open(folder_).status()));
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsDataLoss(MappedFile::Open(pipe).status()));
}

TEST_F(MappedFileTest, ForbiddenFileIsPermissionDenied) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const std::string path = Write("f", "x");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(MappedFile::Open(path).status()));
}

TEST_F(MappedFileTest, ReadFileHasALimit) {
  const std::string bytes = std::string(100'000, 'x') + std::string(1, '\0');
  const std::string path = Write("f", bytes);
  const auto all = ReadFile(path, bytes.size());
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(*all, bytes);
  EXPECT_TRUE(absl::IsDataLoss(ReadFile(path, bytes.size() - 1).status()));
  EXPECT_EQ(*ReadFile(Write("empty", ""), 0), "");
}

TEST_F(MappedFileTest, ReadFileStopsAtItsLimitWhateverTheSizeSays) {
  // Files of /proc have size 0 and content.
  EXPECT_TRUE(absl::IsDataLoss(ReadFile("/proc/self/status", 10).status()));
  EXPECT_GT(ReadFile("/proc/self/status", 1 << 20)->size(), 10u);
}

}  // namespace
}  // namespace limpid
