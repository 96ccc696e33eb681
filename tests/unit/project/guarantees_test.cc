// SPDX-License-Identifier: Apache-2.0
//
// docs/guarantees.md names tests that exist, and its promises have numbers.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <regex>
#include <set>
#include <string>

namespace limpid {
namespace {

std::string Read(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void ForEachMatch(const std::string& text, const char* pattern,
                  const std::function<void(const std::smatch&)>& each) {
  const std::regex regex(pattern);
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end;
       ++it) {
    each(*it);
  }
}

TEST(GuaranteesTest, EveryNamedTestExists) {
  const std::filesystem::path root = LIMPID_SOURCE_DIR;
  std::set<std::string> tests;
  for (const auto& file :
       std::filesystem::recursive_directory_iterator(root / "tests")) {
    if (file.path().extension() == ".py") {
      ForEachMatch(Read(file.path()), R"(def (test_\w+)\()",
                   [&](const std::smatch& match) { tests.insert(match[1]); });
    }
    if (file.path().extension() != ".cc") continue;
    ForEachMatch(Read(file.path()), R"(TEST(?:_F|_P)?\((\w+),\s*(\w+)\))",
                 [&](const std::smatch& match) {
                   tests.insert(match[1].str() + "." + match[2].str());
                 });
  }
  std::set<std::string> named;
  ForEachMatch(Read(root / "docs/guarantees.md"),
               R"(`(\w+Test\.\w+|test_\w+)`)",
               [&](const std::smatch& match) { named.insert(match[1]); });
  EXPECT_GT(named.size(), 40u);
  for (const std::string& name : named) {
    EXPECT_EQ(tests.count(name), 1u) << name;
  }
}

TEST(GuaranteesTest, PromisesAreNumberedInOrder) {
  int expected = 0;
  ForEachMatch(
      Read(std::filesystem::path(LIMPID_SOURCE_DIR) / "docs/guarantees.md"),
      R"(\n(\d+)\. \*\*)", [&](const std::smatch& match) {
        EXPECT_EQ(std::stoi(match[1]), ++expected);
      });
  EXPECT_GT(expected, 10);
}

}  // namespace
}  // namespace limpid
