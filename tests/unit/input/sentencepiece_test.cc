// SPDX-License-Identifier: Apache-2.0
#include "server/input/sentencepiece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/input/tokenizer_testing.h"

namespace limpid {
namespace {

using std::string_literals::operator""s;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using TokenizerPtr = std::shared_ptr<const Tokenizer>;

TokenizerPtr Make(const std::string& model) {
  auto tokenizer = MakeSentencePiece(model, "t.model");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TokenizerPtr Tiny(const std::string& name) {
  return Make(GoldenFile("tiny-" + name + ".model"));
}

// A writer of the format, for models that no trainer would make.

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) {
    out.push_back(static_cast<char>(value | 0x80));
  }
  out.push_back(static_cast<char>(value));
  return out;
}

std::string Number(int field, uint64_t value) {
  return Varint(field << 3) + Varint(value);
}

std::string Bytes(int field, const std::string& bytes) {
  return Varint(field << 3 | 2) + Varint(bytes.size()) + bytes;
}

std::string Fixed32(uint32_t value) {
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
  return out;
}

constexpr int kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4,
              kUnused = 5, kByte = 6;

std::string Piece(const std::string& text, float score = 0,
                  int type = kNormal) {
  return Bytes(1, Bytes(1, text) + Varint(2 << 3 | 5) +
                      Fixed32(std::bit_cast<uint32_t>(score)) +
                      Number(3, type));
}

std::string Trainer(bool byte_fallback = false) {
  return Bytes(2, Number(3, 2) + Number(35, byte_fallback));
}

// Neither a dummy prefix nor anything taken out.
std::string Normalizer(const std::string& map = "") {
  return Bytes(3, Number(3, 0) + Number(4, 0) + Bytes(2, map));
}

const std::string kUnk = Piece("<unk>", 0, kUnknown);

std::string Model(const std::string& pieces) {
  return kUnk + pieces + Trainer() + Normalizer();
}

// <0x00> to <0xFF>
std::string BytePieces() {
  std::string pieces;
  for (int byte = 0; byte < 256; ++byte) {
    char name[7];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    pieces += Piece(name, 0, kByte);
  }
  return pieces;
}

class SentencePieceGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(SentencePieceGoldenTest, GivesTheIdsOfThePythonPackages) {
  ExpectGolden(*Tiny(GetParam()), std::string("tiny-") + GetParam() + ".jsonl");
}

INSTANTIATE_TEST_SUITE_P(Tiny, SentencePieceGoldenTest,
                         testing::Values("gemma", "llama", "mapped", "suffix"));

TEST(SentencePieceTest, SpansAreThePiecesWhereNothingIsNormalised) {
  ExpectSpansArePieces(
      *Tiny("gemma"),
      "Hi\0 w\u00f6rld  \u65e5\u672c \U0001f44d<eos>\n\n    x 123<mask>"s);
}

TEST(SentencePieceTest, SpansLeadBackToTheTextThatWasGiven) {
  const TokenizerPtr tokenizer = Tiny("mapped");
  const auto spans = [&](const std::string& text) {
    return Spans(tokenizer->Encode(text));
  };
  // The dummy prefix and a; f; the i of the ligature with x.
  EXPECT_THAT(spans("a\ufb01x"),
              ElementsAre(std::pair(0, 1), std::pair(1, 4), std::pair(1, 5)));
  // White space that is left out belongs to the neighbour.
  EXPECT_THAT(spans("  a   of  "),
              ElementsAre(std::pair(0, 3), std::pair(3, 10)));
  // A character that becomes nothing, one that becomes three.
  EXPECT_THAT(spans("a\x7f"
                    "b"),
              ElementsAre(std::pair(0, 2), std::pair(2, 3)));
  EXPECT_THAT(spans("\u2026"), ElementsAre(std::pair(0, 0), std::pair(0, 3),
                                           std::pair(0, 3), std::pair(0, 3)));
  // The prefix stands before each part, special tokens have none.
  EXPECT_THAT(spans("the</s>  a"),
              ElementsAre(std::pair(0, 0), std::pair(0, 3), std::pair(3, 7),
                          std::pair(7, 10)));
  EXPECT_THAT(spans("   "), IsEmpty());
  EXPECT_THAT(spans(""), IsEmpty());
  EXPECT_THAT(Spans(Tiny("suffix")->Encode("\u65e5")),
              ElementsAre(std::pair(0, 3), std::pair(3, 3)));
}

TEST(SentencePieceTest, LeadingWhiteSpaceBelongsToTheFirstTokenWithoutPrefix) {
  const TokenizerPtr tokenizer =
      Make(kUnk + Piece("a") + Trainer() + Bytes(3, Number(3, 0)));
  EXPECT_THAT(Spans(tokenizer->Encode("  aa ")),
              ElementsAre(std::pair(0, 3), std::pair(3, 5)));
}

TEST(SentencePieceTest, UnknownCharactersBecomeOneToken) {
  const TokenizerPtr tokenizer =
      Make(Model(Piece("a") + Piece("</s>", 0, kControl)));
  const auto tokens = tokenizer->Encode("xyzayx</s>xa");
  EXPECT_THAT(Ids(tokens), ElementsAre(0, 1, 0, 2, 0, 1));
  EXPECT_THAT(Spans(tokens), ElementsAre(std::pair(0, 3), std::pair(3, 4),
                                         std::pair(4, 6), std::pair(6, 10),
                                         std::pair(10, 11), std::pair(11, 12)));
}

TEST(SentencePieceTest, BytesStandForUnknownCharacters) {
  const TokenizerPtr tokenizer = Tiny("gemma");
  const auto tokens = tokenizer->Encode("\U0001f44d");
  ASSERT_TRUE(tokens.ok());
  ASSERT_EQ(tokens->size(), 4u);
  EXPECT_EQ(tokenizer->Piece((*tokens)[1].id), "\x9f");
  EXPECT_THAT(Spans(tokens), ElementsAre(std::pair(0, 1), std::pair(1, 2),
                                         std::pair(2, 3), std::pair(3, 4)));
  // Those of a character that became another one share its span: here a space,
  // for which this model has only bytes.
  const auto space =
      Make(kUnk + BytePieces() + Trainer(true) + Normalizer())->Encode("x ");
  EXPECT_THAT(Ids(space), ElementsAre(1 + 'x', 1 + 0xE2, 1 + 0x96, 1 + 0x81));
  EXPECT_THAT(Spans(space), ElementsAre(std::pair(0, 1), std::pair(1, 2),
                                        std::pair(1, 2), std::pair(1, 2)));
}

TEST(SentencePieceTest, OnlyPiecesOfTextAreJoined) {
  const TokenizerPtr tokenizer =
      Make(kUnk + BytePieces() + Piece("<") + Piece("0") + Piece("x") +
           Piece("4") + Piece("1") + Piece(">") + Piece("<0") + Piece("x4") +
           Piece("<0x4") + Piece("1>") + Trainer(true) + Normalizer());
  EXPECT_THAT(Ids(tokenizer->Encode("<0x41>")), ElementsAre(265, 266));
}

TEST(SentencePieceTest, ControlPiecesAreRecognisedAndBytePiecesAreNot) {
  const TokenizerPtr tokenizer = Tiny("gemma");
  EXPECT_THAT(Ids(tokenizer->Encode("<bos><eos><unk><pad><mask>")),
              ElementsAre(2, 1, 3, 0, 4));
  EXPECT_GT(Ids(tokenizer->Encode("<0x0A>")).size(), 1u);
  EXPECT_GT(Ids(tokenizer->Encode("<bos")).size(), 1u);
}

TEST(SentencePieceTest, KnowsPiecesAndSpecials) {
  const TokenizerPtr tokenizer = Tiny("gemma");
  const std::vector<std::string> first = {"<pad>",         "<eos>",
                                          "<bos>",         "<unk>",
                                          "<mask>",        "<start_of_turn>",
                                          "<end_of_turn>", "\n",
                                          "\n\n",          "  ",
                                          "    ",          std::string(1, '\0'),
                                          "\x01"};
  const std::vector<bool> specials = {1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0};
  for (size_t id = 0; id < first.size(); ++id) {
    EXPECT_EQ(tokenizer->Piece(id), first[id]);
    EXPECT_EQ(tokenizer->IsSpecial(id), specials[id]) << first[id];
  }
  EXPECT_EQ(tokenizer->Piece(11 + 0xFF), "\xff");
  for (const int64_t id :
       {int64_t{-1}, tokenizer->vocabulary_size(), int64_t{1} << 40}) {
    EXPECT_EQ(tokenizer->Piece(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
}

TEST(SentencePieceTest, JoinsByScoreThenFromTheLeft) {
  const TokenizerPtr tokenizer =
      Make(Model(Piece("a") + Piece("b") + Piece("c") + Piece("ab", -1) +
                 Piece("bc", -0.5) + Piece("aa", -2) + Piece("abc", -9)));
  EXPECT_THAT(Ids(tokenizer->Encode("abc")), ElementsAre(7));
  EXPECT_THAT(Ids(tokenizer->Encode("aaab")), ElementsAre(6, 4));
  EXPECT_THAT(Ids(tokenizer->Encode("aaaaa")), ElementsAre(6, 6, 1));
  EXPECT_THAT(Ids(tokenizer->Encode("bcb")), ElementsAre(5, 2));
}

TEST(SentencePieceTest, UnusedPiecesAreOnlySteps) {
  const TokenizerPtr tokenizer = Make(
      Model(Piece("a") + Piece("b") + Piece("c") + Piece("ab", -1, kUnused) +
            Piece("abc", -2) + Piece("abca", -3, kUnused)));
  EXPECT_THAT(Ids(tokenizer->Encode("abc")), ElementsAre(5));
  EXPECT_THAT(Ids(tokenizer->Encode("abb")), ElementsAre(1, 2, 2));
  EXPECT_THAT(Ids(tokenizer->Encode("abca")), ElementsAre(5, 1));
}

TEST(SentencePieceTest, UserDefinedPiecesAreFoundFirst) {
  const TokenizerPtr tokenizer = Make(Model(
      Piece("a") + Piece("b") + Piece("ab") + Piece("bb", 0, kUserDefined) +
      Piece("bbb", 0, kUserDefined) + Piece("abb")));
  EXPECT_THAT(Ids(tokenizer->Encode("abb")), ElementsAre(1, 4));
  EXPECT_THAT(Ids(tokenizer->Encode("abbbbab")), ElementsAre(1, 5, 2, 3));
}

TEST(SentencePieceTest, RefusesTextThatIsNotUtf8) {
  for (const auto& [text, offset] : TextsThatAreNotUtf8()) {
    ExpectRefusedAt(*Tiny("llama"), text, offset);
  }
}

TEST(SentencePieceTest, TimeIsNearLinearWhateverTheText) {
  for (const char* name : {"gemma", "mapped"}) {
    const TokenizerPtr tokenizer = Tiny(name);
    for (const std::string& text : LongTexts()) {
      EXPECT_LT(SecondsToEncode(*tokenizer, text), 10)
          << name << " " << text.substr(0, 6);
    }
  }
}

// What a damaged file may do: be refused, or be read as another model.
void ExpectTame(const std::string& model) {
  const auto tokenizer = MakeSentencePiece(model, "t.model");
  if (!tokenizer.ok()) {
    EXPECT_TRUE(absl::IsDataLoss(tokenizer.status())) << tokenizer.status();
    EXPECT_EQ(GetErrorDetails(tokenizer.status()).metadata.at("file"),
              "t.model");
    return;
  }
  const std::string text = "the \ufb01\u2026 e\u0301 lake\u65e5</s>";
  const auto tokens = (*tokenizer)->Encode(text);
  if (!tokens.ok()) return;
  for (const TokenSpan& token : *tokens) {
    EXPECT_LE(token.begin, token.end);
    EXPECT_LE(token.end, text.size());
    EXPECT_LT(token.id, (*tokenizer)->vocabulary_size());
  }
}

TEST(SentencePieceTest, SurvivesAnyDamage) {
  const std::string model = GoldenFile("tiny-mapped.model");
  for (size_t size = 0; size < model.size(); size += 3) {
    const auto cut = MakeSentencePiece(model.substr(0, size), "t.model");
    // Without its last messages it is still a message, but no BPE model.
    EXPECT_TRUE(absl::IsDataLoss(cut.status()) || size > model.size() - 1500)
        << size;
    ExpectTame(model.substr(0, size));
  }
  for (size_t i = 0; i < model.size(); ++i) {
    std::string damaged = model;
    for (const char flip : {'\x01', '\x80', '\xff'}) {
      damaged[i] = static_cast<char>(model[i] ^ flip);
      ExpectTame(damaged);
    }
  }
}

class SentencePieceDamagedTest
    : public testing::TestWithParam<std::pair<std::string, const char*>> {};

TEST_P(SentencePieceDamagedTest, IsRefused) {
  const absl::Status status =
      MakeSentencePiece(GetParam().first, "t.model").status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(GetErrorDetails(status).reason, "TOKENIZER_DAMAGED") << status;
  EXPECT_EQ(GetErrorDetails(status).metadata.at("file"), "t.model");
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().second));
}

std::string Map(const std::vector<uint32_t>& units,
                const std::string& replacements) {
  std::string out = Fixed32(units.size() * 4);
  for (const uint32_t unit : units) out += Fixed32(unit);
  return out + replacements;
}

std::string WithMap(const std::string& map) {
  return kUnk + Trainer() + Normalizer(map);
}

constexpr uint32_t kValue = 1u << 31;

INSTANTIATE_TEST_SUITE_P(
    Models, SentencePieceDamagedTest,
    testing::Values(
        std::pair(""s, "no pieces"),
        std::pair("{\"model\": 1}"s, "not a protobuf message"),
        std::pair("\0"s, "not a protobuf message"),
        std::pair(Trainer(), "no pieces"),
        std::pair(Number(1, 7), "field 1 is not bytes"),
        std::pair(Bytes(1, Number(1, 7)), "pieces[0]: field 1"),
        std::pair(Bytes(1, Bytes(1, "a") + Number(2, 7)), "pieces[0]: field 2"),
        std::pair(Bytes(1, Bytes(1, "a") + Bytes(3, "")), "pieces[0]: field 3"),
        std::pair(Bytes(1, "\x0a\x7f"), "pieces[0]: not a protobuf"),
        std::pair(Bytes(2, Bytes(3, "")), "trainer_spec: field 3"),
        std::pair(Bytes(2, "\x0b"), "trainer_spec: not a protobuf"),
        std::pair(Bytes(3, Bytes(4, "")), "normalizer_spec: field 4"),
        std::pair(Bytes(3, "\x80"), "normalizer_spec: not a protobuf"),
        std::pair(Piece("a") + Trainer(), "no unknown piece"),
        std::pair(Model(Piece("?", 0, kUnknown)), "second unknown"),
        std::pair(Model(Piece("")), "pieces[1]: it has 0 bytes"),
        std::pair(Model(Piece(std::string(1025, 'a'))),
                  "pieces[1]: it has 1025 bytes"),
        std::pair(Model(Piece("\xff")), "pieces[1]: it is not UTF-8"),
        std::pair(Model(Piece("a", std::nanf(""))), "not a number"),
        std::pair(Model(Piece("a") + Piece("a")), "pieces[2] \"a\": it is"),
        std::pair(Model(Piece("a", 0, kControl) + Piece("a")), "there twice"),
        std::pair(Model(Piece("<0x0A>", 0, kByte)), "byte_fallback"),
        std::pair(kUnk + Piece("<0x0a>", 0, kByte) + Trainer(true), "no byte"),
        std::pair(kUnk + Piece("<0x0A>", 0, kByte) + Trainer(true),
                  "no piece for the byte 0"),
        std::pair(WithMap("abc"), "its size"),
        std::pair(WithMap(Map({}, "a\0"s)), "its size"),
        std::pair(WithMap(Fixed32(8) + "abcd"), "its size"),
        std::pair(WithMap(Fixed32(6) + "abcdef\0"s), "its size"),
        std::pair(WithMap(Map({0}, "")), "replacements"),
        std::pair(WithMap(Map({0}, "a")), "replacements"),
        std::pair(WithMap(Map({0}, "\xff\0"s)), "replacements"),
        std::pair(WithMap(Map({0}, std::string(1025, 'a') + '\0')), "too long"),
        std::pair(WithMap(Map({0, kValue | 3}, "a\0"s)), "points at no"),
        std::pair(WithMap(Map({0, kValue | 1}, "\u00e9\0"s)), "points at no"),
        std::pair(WithMap(Map({1 << 8 | 9 << 10}, "a\0"s)), "no value"),
        std::pair(WithMap(Map({1 << 8 | 1 << 10, 0}, "a\0"s)), "no value")));

TEST(SentencePieceTest, ReadsAMapOfCharacters) {
  // 'a' becomes "é!": the root's children are at 0x100 XOR their byte, which
  // is written in the form for far ones.
  std::vector<uint32_t> units(0x200);
  units[0] = 1 << 10 | 1 << 9;
  units[0x100 ^ 'a'] = 'a' | 1 << 8 | 1 << 10;
  units[0x100 ^ 'a' ^ 1] = kValue | 2;
  const TokenizerPtr tokenizer =
      Make(kUnk + Piece("\u00e9") + Piece("!") + Piece("b") + Trainer() +
           Normalizer(Map(units, "x\0\u00e9!\0"s)));
  const auto tokens = tokenizer->Encode("bab");
  EXPECT_THAT(Ids(tokens), ElementsAre(3, 1, 2, 3));
  EXPECT_THAT(Spans(tokens), ElementsAre(std::pair(0, 1), std::pair(1, 2),
                                         std::pair(1, 2), std::pair(2, 3)));
}

TEST(SentencePieceTest, ModelsOfOtherKindsAreUnsupported) {
  const std::pair<std::string, const char*> cases[] = {
      {kUnk + Normalizer(), "trainer_spec.model_type"},
      {kUnk + Bytes(2, Number(3, 1)), "trainer_spec.model_type"},
      {kUnk + Bytes(2, Number(3, 4)), "trainer_spec.model_type"},
      {Model(Piece("a", 0, 7)), "pieces[1].type"},
      {Model(Piece("a", 0, 0)), "pieces[1].type"}};
  for (const auto& [model, part] : cases) {
    const absl::Status status = MakeSentencePiece(model, "t.model").status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_EQ(GetErrorDetails(status).reason, "TOKENIZER_UNSUPPORTED");
    EXPECT_EQ(GetErrorDetails(status).metadata.at("part"), part);
  }
}

TEST(SentencePieceTest, InfiniteScoresAreScores) {
  const float inf = std::numeric_limits<float>::infinity();
  const TokenizerPtr tokenizer =
      Make(Model(Piece("a") + Piece("ab", -inf) + Piece("bc", inf)));
  EXPECT_THAT(Ids(tokenizer->Encode("abc")), ElementsAre(1, 3));
  EXPECT_THAT(Ids(tokenizer->Encode("ab")), ElementsAre(2));
}

}  // namespace
}  // namespace limpid
