// SPDX-License-Identifier: Apache-2.0
//
// A folder of model folders that goes with the test.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace limpid::testing {

class TemporaryRepository {
 public:
  TemporaryRepository() {
    std::string pattern = ::testing::TempDir() + "/repository-XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryRepository() { std::filesystem::remove_all(path_); }
  TemporaryRepository(const TemporaryRepository&) = delete;
  TemporaryRepository& operator=(const TemporaryRepository&) = delete;

  const std::string& path() const { return path_; }
  void AddFile(const std::string& name, const std::string& text) {
    const std::filesystem::path file = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
  }
  void AddModel(const std::string& name) {
    AddFile(name + "/config.json", "{}");
  }
  void Remove(const std::string& name) {
    std::filesystem::remove_all(std::filesystem::path(path_) / name);
  }

 private:
  std::string path_;
};

}  // namespace limpid::testing
