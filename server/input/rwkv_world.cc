// SPDX-License-Identifier: Apache-2.0
#include "server/input/rwkv_world.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/input/added_tokens.h"
#include "server/input/byte_trie.h"
#include "server/input/python_literal.h"
#include "server/input/tokenizer_errors.h"
#include "server/input/tokenizer_json.h"
#include "server/input/unicode.h"

namespace limpid {
namespace {

constexpr char kEndOfText[] = "<|rwkv_tokenizer_end_of_text|>";
constexpr int64_t kEndOfTextId = 0;
// What is behind a match may be read in vain once for every token, so that time
// is the text's length times this at most. The published vocabulary's longest
// token has 128 bytes.
constexpr size_t kMaxTokenBytes = 1024;

class RwkvWorld final : public Tokenizer {
 public:
  explicit RwkvWorld(std::vector<std::string> pieces);

  absl::StatusOr<std::vector<TokenSpan>> Encode(
      absl::string_view text) const override;
  std::string Piece(int64_t id) const override {
    return id >= 0 && id < vocabulary_size() ? pieces_[id] : "";
  }
  bool IsSpecial(int64_t id) const override { return id == kEndOfTextId; }
  int64_t vocabulary_size() const override {
    return static_cast<int64_t>(pieces_.size());
  }

 private:
  const std::vector<std::string> pieces_;  // Empty where there is no token.
  AddedToken end_of_text_;
  AddedTokenFinder special_finder_;
  ByteTrie trie_;
};

RwkvWorld::RwkvWorld(std::vector<std::string> pieces)
    : pieces_(std::move(pieces)) {
  end_of_text_.id = kEndOfTextId;
  std::vector<std::pair<absl::string_view, int32_t>> entries;
  for (size_t id = 0; id < pieces_.size(); ++id) {
    if (id == kEndOfTextId) {
      special_finder_.Add(pieces_[id], &end_of_text_);
    } else if (!pieces_[id].empty()) {
      entries.emplace_back(pieces_[id], static_cast<int32_t>(id));
    }
  }
  trie_ = ByteTrie(std::move(entries));
}

absl::StatusOr<std::vector<TokenSpan>> RwkvWorld::Encode(
    absl::string_view text) const {
  LIMPID_RETURN_IF_ERROR(CheckText(text));
  std::vector<TokenSpan> out;
  for (const AddedPiece& piece : special_finder_.Split(text)) {
    if (piece.token != nullptr) {
      out.push_back({piece.token->id, piece.begin, piece.end});
      continue;
    }
    // A token must not reach into the special one behind it.
    const absl::string_view part = text.substr(0, piece.end);
    for (size_t begin = piece.begin; begin < piece.end;) {
      const ByteTrie::Match match = trie_.Longest(part, begin);
      if (match.length == 0) {
        return TextInvalid(begin, "the model's vocabulary has no token for it");
      }
      out.push_back({match.value, begin, begin + match.length});
      begin += match.length;
    }
  }
  return out;
}

// Collects the lines of a vocabulary. The errors say what is wrong with a line.
class Vocabulary {
 public:
  absl::Status AddLine(absl::string_view line);
  bool empty() const { return ids_.empty(); }
  std::vector<std::string> TakePieces() && {
    if (pieces_[kEndOfTextId].empty()) pieces_[kEndOfTextId] = kEndOfText;
    return std::move(pieces_);
  }

 private:
  std::vector<std::string> pieces_ = std::vector<std::string>(1);
  absl::flat_hash_map<std::string, int32_t> ids_;
};

absl::Status Vocabulary::AddLine(absl::string_view line) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  uint32_t id = 0;
  uint32_t size = 0;
  // Digits alone: the number parser would take signs and white space too.
  const auto parse = [](absl::string_view text, uint32_t& number) {
    return text.find_first_not_of("0123456789") == absl::string_view::npos &&
           absl::SimpleAtoi(text, &number);
  };
  if (first == absl::string_view::npos || first == last ||
      !parse(line.substr(0, first), id) ||
      !parse(line.substr(last + 1), size)) {
    return absl::InvalidArgumentError(
        "not an id, a Python literal and a number of bytes with one space "
        "between them");
  }
  if (id >= kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("the id ", id, " is not from 0 to ", kMaxTokens - 1));
  }
  LIMPID_ASSIGN_OR_RETURN(std::string bytes, ParsePythonLiteral(line.substr(
                                                 first + 1, last - first - 1)));
  if (bytes.size() != size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the token has ", bytes.size(), " bytes, but the line says ", size));
  }
  if (bytes.empty() || bytes.size() > kMaxTokenBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the token has ",
                                                   bytes.size(),
                                                   " bytes, must have from 1 "
                                                   "to ",
                                                   kMaxTokenBytes));
  }
  const auto [known, is_new] = ids_.emplace(bytes, static_cast<int32_t>(id));
  if (!is_new) {
    return absl::InvalidArgumentError(
        absl::StrCat("the id ", known->second, " has the same bytes"));
  }
  if (id >= pieces_.size()) pieces_.resize(id + 1);
  if (!pieces_[id].empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the id ", id, " is there twice"));
  }
  pieces_[id] = std::move(bytes);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> MakeRwkvWorld(
    absl::string_view text, const std::string& file) {
  Vocabulary vocabulary;
  int64_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = std::min(text.find('\n'), text.size());
    absl::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    const absl::Status status = FirstBadUtf8(line) < line.size()
                                    ? absl::InvalidArgumentError("not UTF-8")
                                    : vocabulary.AddLine(line);
    if (!status.ok()) {
      return TokenizerDamaged(
          file, absl::StrCat("line ", number, ": ", status.message()));
    }
  }
  if (vocabulary.empty()) return TokenizerDamaged(file, "it has no tokens");
  return std::shared_ptr<const Tokenizer>(
      std::make_shared<RwkvWorld>(std::move(vocabulary).TakePieces()));
}

}  // namespace limpid
