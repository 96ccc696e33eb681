// SPDX-License-Identifier: Apache-2.0
#include "server/input/sentencepiece.h"

#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/input/added_tokens.h"
#include "server/input/byte_trie.h"
#include "server/input/sentencepiece_bpe.h"
#include "server/input/sentencepiece_model.h"
#include "server/input/sentencepiece_normalizer.h"
#include "server/input/tokenizer_errors.h"

namespace limpid {
namespace {

using Type = SentencePieceModel::Type;

bool IsSpecialPiece(const SentencePieceModel::Piece& piece) {
  // Gemma has the last two as user-defined pieces, but Hugging Face and Gemma's
  // published configurations make them special.
  return piece.type == Type::kControl || piece.type == Type::kUnknown ||
         piece.text == "<start_of_turn>" || piece.text == "<end_of_turn>";
}

ByteTrie UserSymbols(const SentencePieceModel& model) {
  std::vector<std::pair<absl::string_view, int32_t>> entries;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    if (model.pieces[id].type == Type::kUserDefined) {
      entries.emplace_back(model.pieces[id].text, static_cast<int32_t>(id));
    }
  }
  return ByteTrie(std::move(entries));
}

class SentencePiece final : public Tokenizer {
 public:
  SentencePiece(SentencePieceModel model, CharacterMap map);

  absl::StatusOr<std::vector<TokenSpan>> Encode(
      absl::string_view text) const override;
  std::string Piece(int64_t id) const override;
  bool IsSpecial(int64_t id) const override {
    return IsKnown(id) && IsSpecialPiece(model_.pieces[id]);
  }
  int64_t vocabulary_size() const override {
    return static_cast<int64_t>(model_.pieces.size());
  }

 private:
  bool IsKnown(int64_t id) const { return id >= 0 && id < vocabulary_size(); }
  // The text's bytes [begin, end), which hold no special token.
  absl::Status EncodePart(absl::string_view text, size_t begin, size_t end,
                          std::vector<TokenSpan>& out) const;

  const SentencePieceModel model_;  // The members below point at it.
  const ByteTrie user_symbols_;
  const SentencePieceNormalizer normalizer_;
  const SentencePieceBpe bpe_;
  std::vector<AddedToken> specials_;
  AddedTokenFinder special_finder_;
};

SentencePiece::SentencePiece(SentencePieceModel model, CharacterMap map)
    : model_(std::move(model)),
      user_symbols_(UserSymbols(model_)),
      normalizer_(model_, std::move(map), &user_symbols_),
      bpe_(&model_, &user_symbols_) {
  for (size_t id = 0; id < model_.pieces.size(); ++id) {
    const SentencePieceModel::Piece& piece = model_.pieces[id];
    if (piece.type != Type::kControl && piece.type != Type::kUnknown) continue;
    AddedToken& special = specials_.emplace_back();
    special.id = static_cast<int64_t>(id);
    special.content = piece.text;
  }
  for (const AddedToken& special : specials_) {
    special_finder_.Add(special.content, &special);
  }
}

std::string SentencePiece::Piece(int64_t id) const {
  if (!IsKnown(id)) return "";
  const SentencePieceModel::Piece& piece = model_.pieces[id];
  uint32_t byte = 0;
  switch (piece.type) {
    case Type::kControl:
    case Type::kUnknown:
      return piece.text;
    case Type::kByte:  // <0x0A>
      (void)absl::SimpleHexAtoi(piece.text.substr(3, 2), &byte);
      return std::string(1, static_cast<char>(byte));
    default:
      return model_.escape_whitespaces
                 ? absl::StrReplaceAll(piece.text, {{"\u2581", " "}})
                 : piece.text;
  }
}

absl::Status SentencePiece::EncodePart(absl::string_view text, size_t begin,
                                       size_t end,
                                       std::vector<TokenSpan>& out) const {
  const absl::string_view part = text.substr(begin, end - begin);
  NormalizedText normal;
  if (!normalizer_.Normalize(part, normal)) {
    return TextInvalid(begin, "what follows is too long once normalised");
  }
  bool was_unknown = false;
  for (const SentencePieceBpe::Symbol& symbol : bpe_.Encode(normal.text)) {
    TokenSpan span;
    span.id = symbol.id;
    span.begin = begin + normal.begin[symbol.begin];
    span.end = begin + normal.end[symbol.end - 1];
    const bool is_unknown = symbol.id == model_.unknown_id;
    if (is_unknown && model_.byte_fallback) {
      const absl::string_view bytes =
          absl::string_view(normal.text)
              .substr(symbol.begin, symbol.end - symbol.begin);
      // The bytes of a character that was not changed stand for themselves.
      const bool is_itself =
          text.substr(span.begin, span.end - span.begin) == bytes;
      for (size_t i = 0; i < bytes.size(); ++i) {
        TokenSpan of_byte = span;
        of_byte.id = model_.byte_ids[static_cast<uint8_t>(bytes[i])];
        if (is_itself) {
          of_byte.begin = span.begin + i;
          of_byte.end = of_byte.begin + 1;
        }
        out.push_back(of_byte);
      }
    } else if (is_unknown && was_unknown) {
      out.back().end = span.end;
    } else {
      out.push_back(span);
    }
    was_unknown = is_unknown;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenSpan>> SentencePiece::Encode(
    absl::string_view text) const {
  LIMPID_RETURN_IF_ERROR(CheckText(text));
  std::vector<TokenSpan> out;
  for (const AddedPiece& piece : special_finder_.Split(text)) {
    if (piece.token != nullptr) {
      out.push_back({piece.token->id, piece.begin, piece.end});
      continue;
    }
    LIMPID_RETURN_IF_ERROR(EncodePart(text, piece.begin, piece.end, out));
  }
  return out;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> MakeSentencePiece(
    absl::string_view model, const std::string& file) {
  LIMPID_ASSIGN_OR_RETURN(SentencePieceModel parsed,
                          ParseSentencePieceModel(model, file));
  absl::StatusOr<CharacterMap> map = CharacterMap::Create(parsed.character_map);
  if (!map.ok()) {
    return TokenizerDamaged(
        file, absl::StrCat("normalizer_spec.precompiled_charsmap: ",
                           map.status().message()));
  }
  return std::shared_ptr<const Tokenizer>(
      std::make_shared<SentencePiece>(std::move(parsed), *std::move(map)));
}

}  // namespace limpid
