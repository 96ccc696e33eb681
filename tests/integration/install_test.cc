// SPDX-License-Identifier: Apache-2.0
//
// The client library as somebody else gets it: installed into an empty folder,
// found by a project of its own, and used by the example programs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/server_process.h"
#include "tests/support/temporary_repository.h"

namespace limpid::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr char kBuild[] = LIMPID_BIN_DIR "/..";

class InstallTest : public ::testing::Test {
 protected:
  static ProcessResult Run(const std::vector<std::string>& command) {
    return RunProcess(command, std::chrono::seconds(300));
  }

  void Install(const std::string& component) {
    const ProcessResult result =
        Run({"cmake", "--install", kBuild, "--component", component, "--prefix",
             prefix()});
    ASSERT_EQ(result.exit_status, 0) << result.errors;
  }

  std::string prefix() const { return folder_.path() + "/prefix"; }

  TemporaryRepository folder_;
};

TEST_F(InstallTest, NothingOfTheServerIsInstalledWithTheLibrary) {
  Install("dev");
  std::set<std::string> headers;
  const fs::path include = fs::path(prefix()) / "include";
  for (const auto& entry : fs::recursive_directory_iterator(include)) {
    if (!entry.is_regular_file()) continue;
    headers.insert(fs::relative(entry.path(), include).string());
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      EXPECT_EQ(line.find("#include \"server/"), std::string::npos)
          << entry.path() << ": " << line;
      EXPECT_EQ(line.find(".grpc.pb.h"), std::string::npos)
          << entry.path() << ": " << line;
    }
  }
  EXPECT_EQ(headers, (std::set<std::string>{
                         "limpid/client/client.h",
                         "limpid/client/error_report.h",
                         "limpid/client/explanation.h",
                         "limpid/client/retry.h",
                         "limpid/client/tensor_codec.h",
                         "limpid/google/api/annotations.pb.h",
                         "limpid/google/api/http.pb.h",
                         "limpid/google/api/httpbody.pb.h",
                         "limpid/limpid/v1/explanation.pb.h",
                         "limpid/limpid/v1/model.pb.h",
                         "limpid/limpid/v1/tensor.pb.h",
                     }));
}

TEST_F(InstallTest, ExamplesAreShort) {
  for (const auto& entry :
       fs::directory_iterator(LIMPID_SOURCE_DIR "/examples")) {
    std::ifstream file(entry.path());
    int lines = 0;
    for (std::string line; std::getline(file, line);) ++lines;
    EXPECT_LE(lines, 40) << entry.path();
  }
}

TEST_F(InstallTest, AnotherProjectFindsTheLibraryAndItsProgramsWork) {
  Install("dev");
  const std::string build = folder_.path() + "/build";
  std::vector<std::string> configure = {"cmake",
                                        "-S",
                                        LIMPID_SOURCE_DIR
                                        "/tests/install_consumer",
                                        "-B",
                                        build,
                                        "-G",
                                        "Ninja",
                                        "-DCMAKE_PREFIX_PATH=" + prefix()};
  // What a sanitizer has instrumented needs its runtime.
  const std::string sanitize = LIMPID_SANITIZE;
  if (!sanitize.empty()) {
    configure.push_back("-DCMAKE_CXX_FLAGS=-fsanitize=" + sanitize);
  }
  const ProcessResult configured = Run(configure);
  ASSERT_EQ(configured.exit_status, 0) << configured.errors;
  const ProcessResult built = Run({"cmake", "--build", build});
  ASSERT_EQ(built.exit_status, 0) << built.output << built.errors;

  const ServerProcess server({"sentiment-mamba"});
  const ProcessResult explained =
      Run({build + "/explain", server.address(), "A gorgeous movie."});
  EXPECT_EQ(explained.exit_status, 0) << explained.errors;
  EXPECT_THAT(explained.output, HasSubstr("   movie\n"));
  const ProcessResult refused = Run({build + "/explain", server.address(), ""});
  EXPECT_EQ(refused.exit_status, 1);
  EXPECT_THAT(refused.errors, HasSubstr("text"));

  const ProcessResult streamed =
      Run({build + "/stream", server.address(), "A gorgeous movie."});
  EXPECT_EQ(streamed.exit_status, 0) << streamed.errors;
  EXPECT_THAT(streamed.output, HasSubstr("layers.0.attention: "));
  EXPECT_THAT(streamed.output, HasSubstr("reconstruction error "));

  const ProcessResult many = Run({build + "/callback", server.address(),
                                  "A gorgeous, witty, seductive movie.",
                                  "A boring, lifeless and predictable mess."});
  EXPECT_EQ(many.exit_status, 0) << many.errors;
  EXPECT_EQ(many.output,
            "<|good|>  A gorgeous, witty, seductive movie.\n"
            "<|bad|>  A boring, lifeless and predictable mess.\n");
}

}  // namespace
}  // namespace limpid::testing
