// SPDX-License-Identifier: Apache-2.0
#include "server/input/byte_bpe.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/input/bpe_model.h"
#include "server/input/normalizer.h"
#include "server/input/tokenizer_errors.h"
#include "server/input/tokenizer_json.h"
#include "server/input/unicode.h"

namespace limpid {
namespace {

// The spelling of bytes that GPT-2 introduced: printable characters of Latin-1
// stand for themselves, the other bytes for the code points from 256 on.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    char32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') ||
                             (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
      const char32_t c = printable ? byte : next++;
      bytes_[c] = static_cast<char>(byte);
    }
  }
  // The bytes that a token spells; none if it spells something else.
  std::optional<std::string> Decode(absl::string_view token) const {
    std::string out;
    for (size_t i = 0; i < token.size();) {
      const auto found = bytes_.find(NextCodePoint(token, i));
      if (found == bytes_.end()) return std::nullopt;
      out.push_back(found->second);
    }
    return out;
  }

 private:
  std::unordered_map<char32_t, char> bytes_;
};

class ByteBpe final : public Tokenizer {
 public:
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Create(
      TokenizerSpec spec, const std::string& file);

  absl::StatusOr<std::vector<TokenSpan>> Encode(
      absl::string_view text) const override;
  std::string Piece(int64_t id) const override {
    return IsKnown(id) ? pieces_[id] : "";
  }
  bool IsSpecial(int64_t id) const override {
    return IsKnown(id) && is_special_[id];
  }
  int64_t vocabulary_size() const override {
    return static_cast<int64_t>(pieces_.size());
  }

 private:
  explicit ByteBpe(Pretokenizer::Options options)
      : pretokenizer_(std::move(options)) {}

  bool IsKnown(int64_t id) const { return id >= 0 && id < vocabulary_size(); }
  void SetPiece(int64_t id, std::string bytes, bool special);
  absl::Status AddVocabulary(TokenizerSpec& spec, const std::string& file);
  absl::Status AddAddedTokens(TokenizerSpec& spec, const std::string& file);
  absl::Status EncodeText(const AlignedText& aligned, size_t begin, size_t end,
                          BpeModel::Scratch& scratch,
                          std::vector<TokenSpan>& out) const;

  bool nfc_ = false;
  Pretokenizer pretokenizer_;
  BpeModel model_;
  std::vector<AddedToken> added_tokens_;  // The finders point at them.
  AddedTokenFinder raw_finder_, normalized_finder_;
  std::vector<std::string> pieces_;
  std::vector<bool> is_special_;
  // Spelling to id, while the tokenizer is made.
  absl::flat_hash_map<std::string, int32_t> ids_;
};

void ByteBpe::SetPiece(int64_t id, std::string bytes, bool special) {
  if (id >= vocabulary_size()) {
    pieces_.resize(id + 1);
    is_special_.resize(id + 1);
  }
  pieces_[id] = std::move(bytes);
  is_special_[id] = special;
}

absl::Status ByteBpe::AddVocabulary(TokenizerSpec& spec,
                                    const std::string& file) {
  const ByteAlphabet alphabet;
  model_.byte_ids.fill(-1);
  std::vector<bool> is_used;
  for (auto& [token, id] : spec.vocabulary) {
    if (static_cast<size_t>(id) >= is_used.size()) is_used.resize(id + 1);
    if (is_used[id]) {
      return TokenizerDamaged(
          file, absl::StrCat("model.vocab: two tokens have the id ", id));
    }
    is_used[id] = true;
    std::optional<std::string> bytes = alphabet.Decode(token);
    if (bytes && bytes->size() == 1) {
      model_.byte_ids[static_cast<uint8_t>((*bytes)[0])] = id;
    }
    if (bytes && spec.ignore_merges) model_.AddWhole(*bytes, id);
    SetPiece(id, bytes ? *std::move(bytes) : token, false);
    ids_.emplace(std::move(token), id);
  }
  const bool lacks_bytes =
      std::count(model_.byte_ids.begin(), model_.byte_ids.end(), -1) > 0;
  if (spec.has_unknown_token && lacks_bytes) {
    return TokenizerUnsupported(file, "model.unk_token",
                                "a token for unknown characters");
  }
  for (const auto& [left, right] : spec.merges) {
    const auto a = ids_.find(left), b = ids_.find(right),
               merged = ids_.find(absl::StrCat(left, right));
    if (a == ids_.end() || b == ids_.end() || merged == ids_.end()) {
      return TokenizerDamaged(
          file, absl::StrCat("model.merges: \"", absl::CEscape(left), "\" + \"",
                             absl::CEscape(right),
                             "\": one of the tokens is not in model.vocab"));
    }
    model_.AddMerge(a->second, b->second, merged->second);
  }
  return absl::OkStatus();
}

absl::Status ByteBpe::AddAddedTokens(TokenizerSpec& spec,
                                     const std::string& file) {
  added_tokens_ = std::move(spec.added_tokens);
  // Where two normalise to the same pattern, special ones win.
  std::stable_sort(added_tokens_.begin(), added_tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) {
                     return a.special > b.special;
                   });
  absl::flat_hash_map<std::string, int64_t> seen;
  for (const AddedToken& token : added_tokens_) {
    const auto damaged = [&](absl::string_view what) {
      return TokenizerDamaged(
          file, absl::StrCat("added_tokens: \"",
                             absl::CEscape(token.content.substr(0, 80)), "\" (",
                             token.id, ") ", what));
    };
    if (!seen.emplace(token.content, token.id).second) {
      return damaged("is there twice");
    }
    const auto known = ids_.find(token.content);
    if (known != ids_.end() && known->second != token.id) {
      return damaged(
          absl::StrCat("has the id ", known->second, " in model.vocab"));
    }
    if (known == ids_.end() && IsKnown(token.id) &&
        !pieces_[token.id].empty()) {
      return damaged("has the id of another token");
    }
    SetPiece(token.id, token.content, token.special);
    if (!token.normalized) {
      raw_finder_.Add(token.content, &token);
    } else {
      const AlignedText pattern = nfc_ ? AlignedText::Nfc(token.content, 0)
                                       : AlignedText(token.content, 0);
      normalized_finder_.Add(pattern.text(), &token);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> ByteBpe::Create(
    TokenizerSpec spec, const std::string& file) {
  std::shared_ptr<ByteBpe> out(new ByteBpe(std::move(spec.pretokenizer)));
  out->nfc_ = spec.nfc;
  LIMPID_RETURN_IF_ERROR(out->AddVocabulary(spec, file));
  LIMPID_RETURN_IF_ERROR(out->AddAddedTokens(spec, file));
  out->ids_ = {};
  return std::shared_ptr<const Tokenizer>(std::move(out));
}

absl::Status ByteBpe::EncodeText(const AlignedText& aligned, size_t begin,
                                 size_t end, BpeModel::Scratch& scratch,
                                 std::vector<TokenSpan>& out) const {
  const absl::string_view text = aligned.text().substr(begin, end - begin);
  LIMPID_ASSIGN_OR_RETURN(std::vector<Word> words, pretokenizer_.Split(text));
  std::vector<BpeModel::Symbol> symbols;
  std::string spaced;
  for (const Word& word : words) {
    absl::string_view bytes = text.substr(word.begin, word.end - word.begin);
    const size_t added = word.space_before ? 1 : 0;
    if (added > 0) {
      spaced.assign(1, ' ');
      spaced.append(bytes.data(), bytes.size());
      bytes = spaced;
    }
    symbols.clear();
    size_t bad = 0;
    if (!model_.Encode(bytes, scratch, symbols, bad)) {
      const size_t at = begin + word.begin + std::max(bad, added) - added;
      return TextInvalid(aligned.OriginalBegin(at),
                         "the model's vocabulary has no token for it");
    }
    size_t from = 0;  // In the word with its added space.
    for (const BpeModel::Symbol& symbol : symbols) {
      const size_t first = begin + word.begin + std::max(from, added) - added;
      const size_t last = begin + word.begin + symbol.end - added;
      TokenSpan span;
      span.id = symbol.id;
      span.begin = aligned.OriginalBegin(first);
      // A token that is the added space alone covers nothing.
      span.end = last > first ? aligned.OriginalEnd(last) : span.begin;
      out.push_back(span);
      from = symbol.end;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenSpan>> ByteBpe::Encode(
    absl::string_view text) const {
  LIMPID_RETURN_IF_ERROR(CheckText(text));
  std::vector<TokenSpan> out;
  BpeModel::Scratch scratch;
  for (const AddedPiece& piece : raw_finder_.Split(text)) {
    if (piece.token != nullptr) {
      out.push_back({piece.token->id, piece.begin, piece.end});
      continue;
    }
    const absl::string_view raw =
        text.substr(piece.begin, piece.end - piece.begin);
    const AlignedText aligned = nfc_ ? AlignedText::Nfc(raw, piece.begin)
                                     : AlignedText(raw, piece.begin);
    for (const AddedPiece& part : normalized_finder_.Split(aligned.text())) {
      if (part.token != nullptr) {
        out.push_back({part.token->id, aligned.OriginalBegin(part.begin),
                       aligned.OriginalEnd(part.end)});
        continue;
      }
      LIMPID_RETURN_IF_ERROR(
          EncodeText(aligned, part.begin, part.end, scratch, out));
    }
  }
  return out;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> MakeByteBpe(
    absl::string_view json, const std::string& file) {
  LIMPID_ASSIGN_OR_RETURN(TokenizerSpec spec, ParseTokenizerJson(json, file));
  return ByteBpe::Create(std::move(spec), file);
}

}  // namespace limpid
