// SPDX-License-Identifier: Apache-2.0
//
// Gives a fuzz target its corpus, whole and cut short. A broken promise ends
// the process.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "tests/fuzz/fuzz.h"

namespace {

TEST(FuzzReplayTest, TheCorpusKeepsThePromises) {
  int num_files = 0, num_runs = 0;
  for (const auto& file : std::filesystem::directory_iterator(
           LIMPID_SOURCE_DIR "/tests/fuzz/corpus/" LIMPID_FUZZ_TARGET)) {
    std::ifstream in(file.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)),
                            std::istreambuf_iterator<char>());
    SCOPED_TRACE(file.path());
    const size_t step = bytes.size() / 16 + 1;
    for (size_t size = bytes.size();; size -= std::min(size, step)) {
      // A copy of just this size, so that reading beyond it can be seen.
      const std::string cut = bytes.substr(0, size);
      EXPECT_EQ(LLVMFuzzerTestOneInput(
                    reinterpret_cast<const uint8_t*>(cut.data()), cut.size()),
                0);
      ++num_runs;
      if (size == 0) break;
    }
    ++num_files;
  }
  EXPECT_GT(num_files, 2);
  std::cout << "figure: " << num_runs << " inputs of the target "
            << LIMPID_FUZZ_TARGET << "\n";
}

}  // namespace
