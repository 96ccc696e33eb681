// SPDX-License-Identifier: Apache-2.0
//
// Documents that are made from programs and protos say what those say today.
#include <gtest/gtest.h>

#include "tests/support/process.h"

namespace limpid::testing {
namespace {

TEST(GeneratedDocsTest, AreWhatWouldBeWrittenNow) {
  const ProcessResult result =
      RunProcess({"python3", LIMPID_SOURCE_DIR "/scripts/generate-docs",
                  "--check", LIMPID_BIN_DIR "/.."});
  EXPECT_EQ(result.exit_status, 0) << result.output << result.errors;
}

}  // namespace
}  // namespace limpid::testing
