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
  ReportRun& run = report.runs.emplace_back();
  run.name = report.title;
  run.facts = {{"method", "raw-attention"}};
  run.predictions = {{" good", 5, 2.5, 0.9}};
  run.tokens = {"A", " film"};
  run.attribution = {0.25f, 0.75f};
  run.layers = {{.layer = 3,
                 .rows = 2,
                 .columns = 2,
                 .reductions = {{"mean-abs", {1, 0, 0.5f, 0.5f}}},
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
  const auto& run = data["runs"][0];
  EXPECT_EQ(run["tokens"][1], " film");
  EXPECT_EQ(run["attribution"][1], 0.75);
  EXPECT_EQ(run["predictions"][0]["id"], 5);
  EXPECT_EQ(run["layers"][0]["layer"], 3);
  EXPECT_EQ(run["layers"][0]["reductions"][0]["bytes"],
            "/gB/fw==");  // 254, 0, 127, 127
  EXPECT_TRUE(data["comparison"].is_null());
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
  ReportRun& run = report.runs[0];
  run.name = attack;
  run.facts = {{attack, attack}};
  run.tokens = {attack, "\xE2\x80\xA8\xff\x1b"};
  run.predictions[0].piece = attack;
  run.layers[0].reductions[0].name = attack;
  report.comparison = {"token", {attack}, {{1.0f}}};
  const auto html = RenderHtmlReport(report);
  ASSERT_TRUE(html.ok());
  EXPECT_FALSE(absl::StrContains(*html, "<script>alert"));
  EXPECT_FALSE(absl::StrContains(*html, "<!--"));
  EXPECT_FALSE(absl::StrContains(*html, "\xE2\x80\xA8"));
  EXPECT_EQ(nlohmann::json::parse(DataOf(*html))["runs"][0]["tokens"][0],
            attack);
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
  ReportRun& run = report.runs[0];
  run.attribution = {std::numeric_limits<float>::quiet_NaN(),
                     std::numeric_limits<float>::infinity()};
  run.layers[0].reductions[0].values[0] =
      std::numeric_limits<float>::quiet_NaN();
  const auto html = RenderHtmlReport(report);
  ASSERT_TRUE(html.ok());
  const auto data = nlohmann::json::parse(DataOf(*html));
  EXPECT_TRUE(data["runs"][0]["attribution"][0].is_null());
  EXPECT_TRUE(data["runs"][0]["attribution"][1].is_null());
}

TEST(HtmlReportTest, ManyLargeMatricesAreReducedTogether) {
  Report report = SmallReport();
  LayerPanel panel = report.runs[0].layers[0];
  panel.rows = panel.columns = 1000;
  panel.reductions[0].values.assign(1000 * 1000, 0.5f);
  const auto factor_of = [&](size_t layers) {
    report.runs[0].layers.assign(layers, panel);
    const auto html = RenderHtmlReport(report);
    EXPECT_TRUE(html.ok());
    EXPECT_LT(html->size(), size_t{13} << 20);
    const auto data = nlohmann::json::parse(DataOf(*html));
    return data["runs"][0]["layers"][0]["factor"].get<int>();
  };
  EXPECT_EQ(factor_of(1), 1);
  EXPECT_GT(factor_of(32), 1);
}

TEST(HtmlReportTest, PatchesNeedNoTokens) {
  Report report;
  ReportRun& run = report.runs.emplace_back();
  run.grid_rows = 2;
  run.grid_columns = 3;
  run.attribution.assign(6, 1.0f);
  EXPECT_TRUE(RenderHtmlReport(report).ok());
  run.attribution.pop_back();
  EXPECT_FALSE(RenderHtmlReport(report).ok());
}

TEST(HtmlReportTest, PicturesAreEmbedded) {
  Report report = SmallReport();
  report.picture = {"png bytes", 0.5};
  const auto html = RenderHtmlReport(report);
  ASSERT_TRUE(html.ok());
  EXPECT_EQ(nlohmann::json::parse(DataOf(*html))["picture"]["png"],
            "data:image/png;base64,cG5nIGJ5dGVz");
}

TEST(HtmlReportTest, RefusesSizesThatDoNotFit) {
  Report report = SmallReport();
  report.runs[0].layers[0].columns = 3;
  EXPECT_FALSE(RenderHtmlReport(report).ok());
  report = SmallReport();
  report.runs[0].layers[0].reductions.clear();
  EXPECT_FALSE(RenderHtmlReport(report).ok());
  report = SmallReport();
  report.runs[0].attribution.pop_back();
  EXPECT_FALSE(RenderHtmlReport(report).ok());
  report = SmallReport();
  report.runs[0].deletion = {{0, 1}, {1}, 0, 0};
  EXPECT_FALSE(RenderHtmlReport(report).ok());
  report = SmallReport();
  report.comparison = {"token", {"a"}, {{1}, {2}}};  // of two, but there is one
  EXPECT_FALSE(RenderHtmlReport(report).ok());
  EXPECT_FALSE(RenderHtmlReport(Report()).ok());
}

}  // namespace
}  // namespace limpid::render
