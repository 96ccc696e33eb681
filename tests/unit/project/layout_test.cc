// SPDX-License-Identifier: Apache-2.0
//
// Which folder may include which: the table of ARCHITECTURE.md, checked against
// every #include.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace limpid {
namespace {

namespace fs = std::filesystem;

struct Include {
  std::string file;    // path from the root
  std::string target;  // what stands between the quotes or brackets
};

std::vector<Include> IncludesUnder(const std::string& folder) {
  static const std::regex kInclude(
      R"re(^\s*#\s*include\s*["<]([^">]+)[">])re");
  std::vector<Include> includes;
  const fs::path root = LIMPID_SOURCE_DIR;
  for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
    const std::string extension = entry.path().extension();
    if (extension != ".h" && extension != ".cc" && extension != ".cu" &&
        extension != ".cuh") {
      continue;
    }
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      std::smatch match;
      if (std::regex_search(line, match, kInclude)) {
        includes.push_back(
            {fs::relative(entry.path(), root).string(), match[1]});
      }
    }
  }
  return includes;
}

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.rfind(prefix, 0) == 0;
}

bool IsTorch(const std::string& target) {
  return StartsWith(target, "torch/") || StartsWith(target, "ATen/") ||
         StartsWith(target, "c10/");
}

bool IsRpc(const std::string& target) {
  return StartsWith(target, "grpc") || StartsWith(target, "google/") ||
         target.find(".pb.h") != std::string::npos;
}

const std::vector<std::string> kEverythingUnderExplain = {
    "server/base/",   "server/checkpoint/",  "server/input/",
    "server/kernels/", "server/models/",     "server/reduce/",
    "server/attribution/", "server/registry/", "server/schedule/",
    "server/observe/"};

// Folder, and prefixes of our own files that it may include beside its own.
const std::map<std::string, std::vector<std::string>>& Allowed() {
  static const auto* const table =
      new std::map<std::string, std::vector<std::string>>{
          {"server/base", {}},
          {"server/checkpoint", {"server/base/"}},
          {"server/input", {"server/base/"}},
          {"server/kernels", {"server/base/"}},
          {"server/schedule", {"server/base/"}},
          {"server/models",
           {"server/base/", "server/checkpoint/", "server/kernels/"}},
          {"server/reduce",
           {"server/base/", "server/kernels/", "server/models/architecture.h",
            "server/models/kernel_ops.h"}},
          {"server/attribution",
           {"server/base/", "server/reduce/", "server/models/architecture.h"}},
          {"server/registry", {"server/base/", "server/models/model.h"}},
          {"server/observe",
           {"server/base/", "server/registry/", "server/schedule/"}},
          {"server/explain", kEverythingUnderExplain},
          {"server/render", {"server/base/"}},
          {"server/rpc",
           {"server/base/", "server/explain/", "server/registry/",
            "server/schedule/", "server/observe/", "server/render/",
            "server/checkpoint/safetensors.h", "server/version.h",
            // Plain data that requests and replies are made of.
            "server/attribution/options.h", "server/attribution/method_spec.h",
            "server/models/form.h", "server/models/model.h",
            "server/reduce/channel_reduction.h", "limpid/", "google/",
            "grpc/"}},
          {"client",
           {"limpid/", "grpc/", "google/", "server/render/",
            "server/checkpoint/safetensors.h", "server/base/",
            // Plain pictures, for evaluations on them.
            "server/input/image_decode.h", "server/input/image_resize.h"}},
      };
  return *table;
}

TEST(LayoutTest, FoldersIncludeOnlyWhatTheTableAllows) {
  for (const auto& [folder, allowed] : Allowed()) {
    for (const Include& include : IncludesUnder(folder)) {
      const std::string& target = include.target;
      const bool ours = StartsWith(target, "server/") ||
                        StartsWith(target, "client/") ||
                        StartsWith(target, "tests/") ||
                        StartsWith(target, "limpid/");
      if (!ours || StartsWith(target, folder + "/")) continue;
      bool fine = false;
      for (const std::string& prefix : allowed) {
        fine = fine || StartsWith(target, prefix);
      }
      EXPECT_TRUE(fine) << include.file << " includes " << target;
    }
  }
}

TEST(LayoutTest, EveryServerFolderIsInTheTable) {
  for (const auto& entry :
       fs::directory_iterator(fs::path(LIMPID_SOURCE_DIR) / "server")) {
    if (!entry.is_directory()) continue;
    EXPECT_EQ(
        Allowed().count("server/" + entry.path().filename().string()), 1u)
        << entry.path();
  }
}

TEST(LayoutTest, TorchStaysInTheEngine) {
  const std::set<std::string> engine = {"server/models", "server/reduce",
                                        "server/attribution", "server/explain"};
  for (const auto& [folder, unused] : Allowed()) {
    if (engine.count(folder)) continue;
    for (const Include& include : IncludesUnder(folder)) {
      EXPECT_FALSE(IsTorch(include.target))
          << include.file << " includes " << include.target;
    }
  }
}

TEST(LayoutTest, RpcStaysInRpcConfigAndClient) {
  for (const Include& include : IncludesUnder("server")) {
    if (StartsWith(include.file, "server/rpc/") ||
        StartsWith(include.file, "server/config") ||
        include.file == "server/main.cc") {
      continue;
    }
    EXPECT_FALSE(IsRpc(include.target))
        << include.file << " includes " << include.target;
  }
}

TEST(LayoutTest, HeadersThatRpcSeesAreFreeOfTorch) {
  // What rpc includes, followed through our own headers.
  std::set<std::string> seen;
  std::vector<std::string> waiting;
  for (const Include& include : IncludesUnder("server/rpc")) {
    if (StartsWith(include.target, "server/")) waiting.push_back(include.target);
  }
  const std::map<std::string, std::vector<std::string>> edges = [] {
    std::map<std::string, std::vector<std::string>> out;
    for (const Include& include : IncludesUnder("server")) {
      out[include.file].push_back(include.target);
    }
    return out;
  }();
  while (!waiting.empty()) {
    const std::string file = waiting.back();
    waiting.pop_back();
    if (!seen.insert(file).second) continue;
    const auto found = edges.find(file);
    if (found == edges.end()) continue;
    for (const std::string& target : found->second) {
      EXPECT_FALSE(IsTorch(target)) << file << " includes " << target;
      if (StartsWith(target, "server/")) waiting.push_back(target);
    }
  }
  EXPECT_GT(seen.size(), 5u);
}

}  // namespace
}  // namespace limpid
