// SPDX-License-Identifier: Apache-2.0
//
// The report is self-contained and no text in it can become markup or script.
#include "server/render/html_report.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace limpid::render {
namespace {

Report SmallReport() {
  Report report;
  report.title = "sentiment - raw-attention";
  report.facts = {{"method", "raw-attention"}};
  report.predictions = {{" good", 5, 2.5, 0.9}};
  report.tokens = {"A", " film"};
  report.attribution = {0.25f, 0.75f};
  report.layers = {{.layer = 3,
                    .rows = 2,
                    .columns = 2,
                    .values = {1, 0, 0.5f, 0.5f},
                    .reconstruction_error = 1e-7}};
  return report;
}

// The JSON between the data script's tags.
std::string DataOf(const std::string& html) {
  const std::string tag = "id=\"data\">";
  const size_t begin = html.find(tag) + tag.size();
  return html.substr(begin, html.find("</script>", begin) - begin);
}

TEST(HtmlReportTest, CarriesTheExplanation) {
  const auto html = RenderHtmlReport(SmallReport());
  ASSERT_TRUE(html.ok()) << html.status();
  const auto data = nlohmann::json::parse(DataOf(*html));
  EXPECT_EQ(data["tokens"][1], " film");
  EXPECT_EQ(data["attribution"][1], 0.75);
  EXPECT_EQ(data["predictions"][0]["id"], 5);
  EXPECT_EQ(data["layers"][0]["layer"], 3);
  EXPECT_EQ(data["layers"][0]["bytes"], "/gB/fw==");  // 254, 0, 127, 127
}

TEST(HtmlReportTest, RefersToNothingOutside) {
  const auto html = RenderHtmlReport(SmallReport());
  ASSERT_TRUE(html.ok());
  for (const char* word :
       {"http:", "https:", "src=", "href=", "@import", "url("}) {
    EXPECT_FALSE(absl::StrContains(*html, word)) << word;
  }
  EXPECT_TRUE(absl::StrContains(*html, "default-src 'none'"));
}

TEST(HtmlReportTest, HostileTextStaysText) {
  Report report = SmallReport();
  const std::string attack = "</script><script>alert(1)</script><!--&lt;";
  report.title = attack;
  report.facts = {{attack, attack}};
  report.tokens = {attack, "\xE2\x80\xA8\xff\x1b"};
  report.predictions[0].piece = attack;
  const auto html = RenderHtmlReport(report);
  ASSERT_TRUE(html.ok());
  EXPECT_FALSE(absl::StrContains(*html, "<script>alert"));
  EXPECT_FALSE(absl::StrContains(*html, "<!--"));
  EXPECT_FALSE(absl::StrContains(*html, "\xE2\x80\xA8"));
  EXPECT_EQ(nlohmann::json::parse(DataOf(*html))["tokens"][0], attack);
}

TEST(HtmlReportTest, JsonEscapesMeanTheSameAndHoldNoMarkup) {
  const std::string json = R"(["<a&b>", ")"
                           "\xE2\x80\xA8\xE2\x80\xA9"
                           "\"]";
  const std::string escaped = EscapeJsonForScript(json);
  EXPECT_EQ(escaped.find_first_of("<>&"), std::string::npos);
  EXPECT_FALSE(absl::StrContains(escaped, "\xE2\x80\xA8"));
  EXPECT_FALSE(absl::StrContains(escaped, "\xE2\x80\xA9"));
  EXPECT_EQ(nlohmann::json::parse(escaped), nlohmann::json::parse(json));
}

TEST(HtmlReportTest, HtmlEscapesCoverTextAndAttributes) {
  EXPECT_EQ(EscapeHtml("<a b='\"&'>"), "&lt;a b=&#39;&quot;&amp;&#39;&gt;");
}

TEST(HtmlReportTest, NonFiniteValuesBecomeNull) {
  Report report = SmallReport();
  report.attribution = {std::numeric_limits<float>::quiet_NaN(),
                        std::numeric_limits<float>::infinity()};
  report.layers[0].values[0] = std::numeric_limits<float>::quiet_NaN();
  const auto html = RenderHtmlReport(report);
  ASSERT_TRUE(html.ok());
  const auto data = nlohmann::json::parse(DataOf(*html));
  EXPECT_TRUE(data["attribution"][0].is_null());
  EXPECT_TRUE(data["attribution"][1].is_null());
}

TEST(HtmlReportTest, LargeMatricesAreReduced) {
  Report report = SmallReport();
  report.layers[0].rows = report.layers[0].columns = 1000;
  report.layers[0].values.assign(1000 * 1000, 0.5f);
  const auto html = RenderHtmlReport(report);
  ASSERT_TRUE(html.ok());
  EXPECT_LT(html->size(), 200000u);
  EXPECT_EQ(nlohmann::json::parse(DataOf(*html))["layers"][0]["factor"], 4);
}

TEST(HtmlReportTest, PatchesNeedNoTokens) {
  Report report;
  report.grid_rows = 2;
  report.grid_columns = 3;
  report.attribution.assign(6, 1.0f);
  EXPECT_TRUE(RenderHtmlReport(report).ok());
  report.attribution.pop_back();
  EXPECT_FALSE(RenderHtmlReport(report).ok());
}

TEST(HtmlReportTest, RefusesSizesThatDoNotFit) {
  Report report = SmallReport();
  report.layers[0].columns = 3;
  EXPECT_FALSE(RenderHtmlReport(report).ok());
  report = SmallReport();
  report.attribution.pop_back();
  EXPECT_FALSE(RenderHtmlReport(report).ok());
}

}  // namespace
}  // namespace limpid::render
