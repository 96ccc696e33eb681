// SPDX-License-Identifier: Apache-2.0
//
// limpid-server as its own process with the embedded models, or some of them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temporary_repository.h"

namespace limpid::testing {

class ServerProcess {
 public:
  // `models`: names of embedded models, whose folders are linked to.
  explicit ServerProcess(const std::vector<std::string>& models)
      : process_({LIMPID_BIN_DIR "/limpid-server", "--model-repository",
                  Link(repository_, models), "--listen", "127.0.0.1:0",
                  "--metrics", "off", "--device", "cpu"}) {
    const std::string prefix = "limpid-server listening on ";
    const std::string line = process_.ReadLine(std::chrono::seconds(60));
    EXPECT_EQ(line.substr(0, prefix.size()), prefix);
    if (line.size() > prefix.size()) address_ = line.substr(prefix.size());
  }

  const std::string& address() const { return address_; }  // HOST:PORT

 private:
  static std::string Link(const TemporaryRepository& repository,
                          const std::vector<std::string>& models) {
    const std::filesystem::path source = LIMPID_SOURCE_DIR "/models";
    for (const std::string& model : models) {
      std::filesystem::create_directory_symlink(
          source / model, std::filesystem::path(repository.path()) / model);
    }
    return repository.path();
  }

  TemporaryRepository repository_;
  Process process_;
  std::string address_;
};

}  // namespace limpid::testing
