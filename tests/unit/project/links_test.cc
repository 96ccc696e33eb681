// SPDX-License-Identifier: Apache-2.0
//
// Links in the documents lead somewhere: to files of the tree, and to headings.
// Addresses elsewhere are not visited, only written well.
#include <gtest/gtest.h>

#include <cctype>
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

std::string ReadAll(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<fs::path> Documents() {
  const fs::path root = LIMPID_SOURCE_DIR;
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (entry.path().extension() == ".md") out.push_back(entry.path());
  }
  for (const char* folder : {"docs", "models", "tests/golden"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (entry.path().extension() == ".md") out.push_back(entry.path());
    }
  }
  return out;
}

// The anchors that hosts make of headings: lower case, blanks become dashes,
// other signs go; a heading that comes again gets a number.
std::set<std::string> AnchorsOf(const std::string& text) {
  std::set<std::string> anchors;
  std::map<std::string, int> times;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const size_t hashes = line.find_first_not_of('#');
    if (hashes == 0 || hashes == std::string::npos || line[hashes] != ' ') {
      continue;
    }
    std::string anchor;
    for (const unsigned char c : line.substr(hashes + 1)) {
      if (std::isalnum(c) || c == '-' || c == '_' || c >= 0x80) {
        anchor += static_cast<char>(std::tolower(c));
      } else if (c == ' ') {
        anchor += '-';
      }
    }
    const int before = times[anchor]++;
    anchors.insert(before == 0 ? anchor
                               : anchor + "-" + std::to_string(before));
  }
  return anchors;
}

std::vector<std::string> LinksOf(const std::string& text) {
  static const std::regex kLink(R"(\]\(([^)\s]+)\))");
  std::vector<std::string> links;
  for (std::sregex_iterator it(text.begin(), text.end(), kLink), end; it != end;
       ++it) {
    links.push_back((*it)[1]);
  }
  return links;
}

TEST(LinksTest, LeadToFilesAndHeadings) {
  static const std::regex kElsewhere(R"(https://[A-Za-z0-9.-]+(/\S*)?)");
  size_t seen = 0;
  for (const fs::path& document : Documents()) {
    for (const std::string& link : LinksOf(ReadAll(document))) {
      ++seen;
      if (link.find("://") != std::string::npos) {
        EXPECT_TRUE(std::regex_match(link, kElsewhere))
            << document << ": " << link;
        continue;
      }
      const size_t hash = link.find('#');
      const std::string path = link.substr(0, hash);
      const fs::path target =
          path.empty() ? document : document.parent_path() / path;
      EXPECT_TRUE(fs::exists(target)) << document << ": " << link;
      if (hash != std::string::npos && fs::is_regular_file(target)) {
        EXPECT_EQ(AnchorsOf(ReadAll(target)).count(link.substr(hash + 1)), 1u)
            << document << ": " << link;
      }
    }
  }
  EXPECT_GT(seen, 50u);
}

TEST(LinksTest, AnchorsAreThoseOfHosts) {
  const std::set<std::string> anchors = AnchorsOf(
      "# Where we differ from the papers' code\n## A `b` c\n## A b c\n#no\n");
  EXPECT_EQ(anchors,
            (std::set<std::string>{"where-we-differ-from-the-papers-code",
                                   "a-b-c", "a-b-c-1"}));
}

}  // namespace
}  // namespace limpid
