// SPDX-License-Identifier: Apache-2.0
#include "server/input/byte_bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "server/base/mapped_file.h"

namespace limpid {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using TokenizerPtr = std::shared_ptr<const Tokenizer>;

std::string Golden(const std::string& name) {
  const auto text =
      ReadFile(std::string(LIMPID_TEST_DATA) + "/tokenizers/" + name, 16 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  return *text;
}

TokenizerPtr Make(const std::string& json) {
  auto tokenizer = MakeByteBpe(json, "t.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TokenizerPtr Tiny(const std::string& name) {
  return Make(Golden("tiny-" + name + ".json"));
}

std::vector<int64_t> Ids(const std::vector<TokenSpan>& tokens) {
  std::vector<int64_t> ids;
  for (const TokenSpan& token : tokens) ids.push_back(token.id);
  return ids;
}

std::vector<std::pair<size_t, size_t>> Spans(
    const std::vector<TokenSpan>& tokens) {
  std::vector<std::pair<size_t, size_t>> spans;
  for (const TokenSpan& token : tokens) {
    spans.emplace_back(token.begin, token.end);
  }
  return spans;
}

// A tokenizer.json with letters a to e, space and a few merges, to be changed.
Json Small() {
  Json json = Json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 9, "content": "<s>", "single_word": false,
      "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                      "trim_offsets": true, "use_regex": true},
    "post_processor": null, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": null, "end_of_word_suffix": "",
      "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "bc": 5, "abc": 6,
                "Ġa": 7, "aa": 8},
      "merges": [["a", "b"], ["b", "c"], ["Ġ", "a"], ["ab", "c"], ["a", "a"]]}
  })");
  return json;
}

class GoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, GivesTheIdsOfThePythonPackage) {
  const TokenizerPtr tokenizer = Tiny(GetParam());
  const std::string lines =
      Golden(std::string("tiny-") + GetParam() + ".jsonl");
  int cases = 0;
  for (size_t begin = 0; begin < lines.size(); ++cases) {
    const size_t end = lines.find('\n', begin);
    const Json json = Json::parse(lines.substr(begin, end - begin));
    begin = end + 1;
    const auto text = json["text"].get<std::string>();
    const auto tokens = tokenizer->Encode(text);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(Ids(*tokens), json["ids"].get<std::vector<int64_t>>())
        << json["text"].dump();
    size_t last = 0;
    for (const TokenSpan& token : *tokens) {
      EXPECT_LE(token.begin, token.end);
      EXPECT_LE(token.end, text.size());
      EXPECT_GE(token.begin, last) << json["text"].dump();
      last = token.begin;
    }
  }
  EXPECT_GE(cases, 300);
}

INSTANTIATE_TEST_SUITE_P(Tiny, GoldenTest,
                         testing::Values("neox", "flags", "split"));

TEST(ByteBpeTest, SpansAreThePiecesWhereNothingIsNormalised) {
  const TokenizerPtr tokenizer = Tiny("neox");
  const std::string text = std::string(
      "Hi\0 wörld  日本 👍🏽 <|endoftext|>\n\n    x 123", 48);
  const auto tokens = tokenizer->Encode(text);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  size_t end = 0;
  for (const TokenSpan& token : *tokens) {
    EXPECT_EQ(token.begin, end);
    EXPECT_EQ(text.substr(token.begin, token.end - token.begin),
              tokenizer->Piece(token.id));
    end = token.end;
  }
  EXPECT_EQ(end, text.size());
}

TEST(ByteBpeTest, ComposedCharactersShareTheirSpan) {
  const TokenizerPtr tokenizer = Tiny("neox");
  // n, then e + acute + dot below, which become ẹ and the acute; then x.
  const auto tokens = tokenizer->Encode("ne\u0301\u0323x");
  ASSERT_TRUE(tokens.ok());
  ASSERT_GE(tokens->size(), 4u);
  EXPECT_EQ(Spans(*tokens).front(), std::pair(size_t{0}, size_t{1}));
  EXPECT_EQ(Spans(*tokens).back(), std::pair(size_t{6}, size_t{7}));
  for (size_t i = 1; i + 1 < tokens->size(); ++i) {
    EXPECT_EQ(Spans(*tokens)[i], std::pair(size_t{1}, size_t{6}));
  }
}

TEST(ByteBpeTest, AddedSpaceCoversNothing) {
  Json json = Small();
  json["pre_tokenizer"]["add_prefix_space"] = true;
  const TokenizerPtr tokenizer = Make(json.dump());
  auto tokens = tokenizer->Encode("ab");
  ASSERT_TRUE(tokens.ok());
  EXPECT_THAT(Ids(*tokens), ElementsAre(3, 4));
  EXPECT_THAT(Spans(*tokens), ElementsAre(std::pair(0, 0), std::pair(0, 2)));
  tokens = tokenizer->Encode("ac<s> c");
  ASSERT_TRUE(tokens.ok());
  EXPECT_THAT(Ids(*tokens), ElementsAre(7, 2, 9, 3, 2));
  EXPECT_THAT(Spans(*tokens),
              ElementsAre(std::pair(0, 1), std::pair(1, 2), std::pair(2, 5),
                          std::pair(5, 6), std::pair(6, 7)));
}

TEST(ByteBpeTest, MergesByRankThenFromTheLeft) {
  const TokenizerPtr tokenizer = Make(Small().dump());
  EXPECT_THAT(Ids(*tokenizer->Encode("abc")), ElementsAre(6));
  EXPECT_THAT(Ids(*tokenizer->Encode("bcb")), ElementsAre(5, 1));
  EXPECT_THAT(Ids(*tokenizer->Encode("aaaaa")), ElementsAre(8, 8, 0));
  EXPECT_THAT(Ids(*tokenizer->Encode("aab abc")), ElementsAre(0, 4, 3, 6));
}

TEST(ByteBpeTest, LaterMergeOfTheSamePairCounts) {
  Json json = Small();
  json["model"]["merges"] = {"a b", "b c", "a b"};
  EXPECT_THAT(Ids(*Make(json.dump())->Encode("abc")), ElementsAre(0, 5));
}

TEST(ByteBpeTest, KnowsPiecesAndSpecials) {
  const TokenizerPtr tokenizer = Tiny("neox");
  EXPECT_EQ(tokenizer->vocabulary_size(), 623);
  EXPECT_EQ(tokenizer->Piece(0), "<|endoftext|>");
  EXPECT_TRUE(tokenizer->IsSpecial(0));
  EXPECT_EQ(tokenizer->Piece(622), "  ");
  EXPECT_FALSE(tokenizer->IsSpecial(622));
  for (const int64_t id : {int64_t{-1}, int64_t{623}, int64_t{1} << 40}) {
    EXPECT_EQ(tokenizer->Piece(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
  EXPECT_EQ(Make(Small().dump())->Piece(7), " a");
}

TEST(ByteBpeTest, RefusesTextThatIsNotUtf8) {
  const TokenizerPtr tokenizer = Tiny("neox");
  const std::pair<const char*, int> cases[] = {{"\xff", 0},
                                               {"abc\x80", 3},
                                               {"a\xc3", 1},
                                               {"a\xc3(", 1},
                                               {"\xc0\x80", 0},
                                               {"ab\xed\xa0\x80", 2},
                                               {"\xf4\x90\x80\x80", 0},
                                               {"\u00e9\xe2\x82", 2}};
  for (const auto& [text, offset] : cases) {
    const absl::Status status = tokenizer->Encode(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    const ErrorDetails details = GetErrorDetails(status);
    ASSERT_EQ(details.violations.size(), 1u);
    EXPECT_EQ(details.violations[0].field, "input.text");
    EXPECT_THAT(details.violations[0].description,
                HasSubstr("byte " + std::to_string(offset) + ":"));
  }
}

TEST(ByteBpeTest, RefusesBytesOutsideTheVocabulary) {
  const absl::Status status =
      Make(Small().dump())->Encode("ab <s>abx").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 8"));
  EXPECT_EQ(GetErrorDetails(status).violations[0].field, "input.text");
}

// Quadratic work on any of these would take minutes.
TEST(ByteBpeTest, TimeIsNearLinearWhateverTheText) {
  std::string mixed, marks, jamo;
  for (int i = 0; i < 20'000; ++i) mixed += "a1 .\n'";
  for (int i = 0; i < 25'000; ++i) marks += "\u0301\u0316";
  for (int i = 0; i < 16'000; ++i) jamo += "\u1100\u1161";
  const std::string texts[] = {std::string(100'000, 'a'),
                               std::string(100'000, ' '),
                               std::string(100'000, '\n'),
                               std::string(100'000, '.'),
                               std::string(100'000, '\''),
                               std::string(100'000, '\0'),
                               std::string(100'000, ' ') + "x",
                               "a" + marks,
                               marks,
                               mixed,
                               jamo};
  for (const char* name : {"neox", "flags", "split"}) {
    const TokenizerPtr tokenizer = Tiny(name);
    for (const std::string& text : texts) {
      const auto start = std::chrono::steady_clock::now();
      const auto tokens = tokenizer->Encode(text);
      const std::chrono::duration<double> took =
          std::chrono::steady_clock::now() - start;
      EXPECT_TRUE(tokens.ok()) << tokens.status();
      EXPECT_LT(took.count(), 10) << name << " " << text.substr(0, 6);
    }
  }
}

class UnsupportedTest
    : public testing::TestWithParam<std::pair<const char*, const char*>> {};

// A JSON patch and the part that the error must name.
TEST_P(UnsupportedTest, NamesThePart) {
  const Json json = Small().patch(Json::parse(GetParam().first));
  const absl::Status status = MakeByteBpe(json.dump(), "t.json").status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "TOKENIZER_UNSUPPORTED") << status;
  EXPECT_EQ(details.metadata.at("file"), "t.json");
  EXPECT_EQ(details.metadata.at("part"), GetParam().second);
}

INSTANTIATE_TEST_SUITE_P(
    Parts, UnsupportedTest,
    testing::Values(
        std::pair(R"([{"op":"add","path":"/new","value":1}])", "new"),
        std::pair(R"([{"op":"add","path":"/version","value":"2.0"}])",
                  "version"),
        std::pair(R"([{"op":"add","path":"/normalizer",
                       "value":{"type":"NFKC"}}])",
                  "normalizer.type"),
        std::pair(R"([{"op":"add","path":"/normalizer","value":{"type":
                       "Sequence","normalizers":[{"type":"NFC"},
                       {"type":"Lowercase"}]}}])",
                  "normalizer.type"),
        std::pair(R"([{"op":"add","path":"/pre_tokenizer","value":null}])",
                  "pre_tokenizer"),
        std::pair(R"([{"op":"add","path":"/pre_tokenizer/type",
                       "value":"Metaspace"}])",
                  "pre_tokenizer.type"),
        std::pair(R"([{"op":"add","path":"/pre_tokenizer/x","value":1}])",
                  "pre_tokenizer.x"),
        std::pair(R"([{"op":"add","path":"/pre_tokenizer","value":{"type":
                       "Sequence","pretokenizers":[{"type":"ByteLevel"},
                       {"type":"Digits"}]}}])",
                  "pre_tokenizer.type"),
        std::pair(R"([{"op":"add","path":"/pre_tokenizer","value":{"type":
                       "Sequence","pretokenizers":[{"type":"Split","pattern":
                       {"Regex":"(a"},"behavior":"Isolated","invert":false},
                       {"type":"ByteLevel"}]}}])",
                  "pre_tokenizer.pattern.Regex"),
        std::pair(R"([{"op":"add","path":"/pre_tokenizer","value":{"type":
                       "Sequence","pretokenizers":[{"type":"Split","pattern":
                       {"Regex":"a*"},"behavior":"Isolated","invert":false},
                       {"type":"ByteLevel"}]}}])",
                  "pre_tokenizer.pattern.Regex"),
        std::pair(R"([{"op":"add","path":"/pre_tokenizer","value":{"type":
                       "Sequence","pretokenizers":[{"type":"Split","pattern":
                       {"Regex":"a"},"behavior":"MergedWithNext",
                       "invert":false},{"type":"ByteLevel"}]}}])",
                  "pre_tokenizer.behavior"),
        std::pair(R"([{"op":"add","path":"/decoder","value":
                       {"type":"Metaspace"}}])",
                  "decoder"),
        std::pair(R"([{"op":"add","path":"/model/type","value":"Unigram"}])",
                  "model.type"),
        std::pair(R"([{"op":"add","path":"/model/dropout","value":0.1}])",
                  "model.dropout"),
        std::pair(R"([{"op":"add","path":"/model/byte_fallback",
                       "value":true}])",
                  "model.byte_fallback"),
        std::pair(R"([{"op":"add","path":"/model/end_of_word_suffix",
                       "value":"</w>"}])",
                  "model.end_of_word_suffix"),
        std::pair(R"([{"op":"add","path":"/model/continuing_subword_prefix",
                       "value":"##"}])",
                  "model.continuing_subword_prefix"),
        std::pair(R"([{"op":"add","path":"/model/unk_token","value":"a"}])",
                  "model.unk_token"),
        std::pair(R"([{"op":"add","path":"/added_tokens/0/x","value":1}])",
                  "added_tokens[0].x")));

class DamagedTest : public testing::TestWithParam<const char*> {};

TEST_P(DamagedTest, IsRefused) {
  const Json json = Small().patch(Json::parse(GetParam()));
  const absl::Status status = MakeByteBpe(json.dump(), "t.json").status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(GetErrorDetails(status).reason, "TOKENIZER_DAMAGED") << status;
  EXPECT_EQ(GetErrorDetails(status).metadata.at("file"), "t.json");
}

INSTANTIATE_TEST_SUITE_P(
    Parts, DamagedTest,
    testing::Values(
        R"([{"op":"remove","path":"/model"}])",
        R"([{"op":"add","path":"/model","value":[]}])",
        R"([{"op":"remove","path":"/model/vocab"}])",
        R"([{"op":"add","path":"/model/merges","value":{}}])",
        R"([{"op":"add","path":"/model/merges/0","value":"abc"}])",
        R"([{"op":"add","path":"/model/merges/0","value":"a b c"}])",
        R"([{"op":"add","path":"/model/merges/0","value":["a"]}])",
        R"([{"op":"add","path":"/model/merges/0","value":["a",1]}])",
        R"([{"op":"add","path":"/model/merges/0","value":"a z"}])",
        R"([{"op":"add","path":"/model/merges/0","value":"a c"}])",
        R"([{"op":"add","path":"/model/vocab/q","value":-1}])",
        R"([{"op":"add","path":"/model/vocab/q","value":1.5}])",
        R"([{"op":"add","path":"/model/vocab/q","value":0}])",
        R"([{"op":"add","path":"/model/vocab/q","value":4294967296}])",
        R"([{"op":"add","path":"/model/ignore_merges","value":1}])",
        R"([{"op":"add","path":"/normalizer","value":[]}])",
        R"([{"op":"add","path":"/normalizer","value":{"type":7}}])",
        R"([{"op":"add","path":"/normalizer","value":{"type":"Sequence"}}])",
        R"([{"op":"add","path":"/pre_tokenizer","value":"ByteLevel"}])",
        R"([{"op":"add","path":"/pre_tokenizer/use_regex","value":"x"}])",
        R"([{"op":"add","path":"/pre_tokenizer","value":{"type":"Split"}}])",
        R"([{"op":"add","path":"/added_tokens","value":{}}])",
        R"([{"op":"add","path":"/added_tokens/0","value":7}])",
        R"([{"op":"remove","path":"/added_tokens/0/content"}])",
        R"([{"op":"add","path":"/added_tokens/0/id","value":"9"}])",
        R"([{"op":"add","path":"/added_tokens/0/id","value":3}])",
        R"([{"op":"add","path":"/added_tokens/0/content","value":"ab"}])",
        R"([{"op":"copy","from":"/added_tokens/0","path":"/added_tokens/1"}])"));

TEST(ByteBpeTest, RefusesWhatIsNoJsonObject) {
  using std::string_literals::operator""s;
  for (const std::string& text : {""s, "[]"s, "{"s, "7"s, "{}\0"s,
                                  std::string(1'000'000, '['), "\xff"s}) {
    const absl::Status status = MakeByteBpe(text, "t.json").status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, "TOKENIZER_DAMAGED");
  }
}

TEST(ByteBpeTest, UnknownTokenIsFineWhereNoByteIsUnknown) {
  Json json = Json::parse(Golden("tiny-neox.json"));
  json["model"]["unk_token"] = "<|endoftext|>";
  EXPECT_TRUE(MakeByteBpe(json.dump(), "t.json").ok());
}

TEST(TokenizerTest, OpensAFolder) {
  std::string folder = testing::TempDir() + "limpid-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  auto tokenizer = Tokenizer::Open(folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*tokenizer, nullptr);

  const std::string path = folder + "/tokenizer.json";
  std::ofstream(path) << Small().dump();
  tokenizer = Tokenizer::Open(folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(Ids(*(*tokenizer)->Encode("abc")), ElementsAre(6));

  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  const absl::Status status = Tokenizer::Open(folder).status();
  EXPECT_EQ(GetErrorDetails(status).reason, "TOKENIZER_DAMAGED");
  EXPECT_EQ(GetErrorDetails(status).metadata.at("file"), path);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace limpid
