// SPDX-License-Identifier: Apache-2.0
#include "server/input/sentencepiece_model.h"

#include <bit>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/input/protobuf_reader.h"
#include "server/input/tokenizer_errors.h"
#include "server/input/tokenizer_json.h"
#include "server/input/unicode.h"

namespace limpid {
namespace {

using Piece = SentencePieceModel::Piece;
using Type = SentencePieceModel::Type;
using Wire = ProtobufReader::Wire;

constexpr uint64_t kBpe = 2;  // TrainerSpec.ModelType
// Looking up a candidate for a merge costs its length.
constexpr size_t kMaxPieceBytes = 1024;

// Value of an upper case hexadecimal digit; 16 if it is none.
uint32_t HexValue(char c) {
  if (absl::ascii_isdigit(c)) return c - '0';
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 16;
}

// The byte that <0x0A> stands for.
bool ReadByte(absl::string_view text, uint8_t& byte) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') {
    return false;
  }
  const uint32_t high = HexValue(text[3]), low = HexValue(text[4]);
  byte = static_cast<uint8_t>(high << 4 | low);
  return high < 16 && low < 16;
}

class Parser {
 public:
  explicit Parser(const std::string& file) : file_(file) {}

  absl::StatusOr<SentencePieceModel> Parse(absl::string_view model);

 private:
  // Readers of the messages that a model is made of.
  absl::Status ReadPiece(absl::string_view message);
  absl::Status ReadTrainer(absl::string_view message);
  absl::Status ReadNormalizer(absl::string_view message);
  absl::Status CheckPieces();
  absl::Status CheckPiece(int32_t id);

  // A value of a field; an error if it is stored as something else.
  absl::Status Bytes(const ProtobufReader& reader, absl::string_view& out);
  absl::Status Number(const ProtobufReader& reader, Wire wire, uint64_t& out);
  absl::Status Flag(const ProtobufReader& reader, bool& out);
  absl::Status End(const ProtobufReader& reader);

  absl::Status Damaged(absl::string_view what) {
    return TokenizerDamaged(file_, absl::StrCat(what_, what));
  }

  const std::string& file_;
  std::string what_;  // The message at hand, for errors.
  SentencePieceModel out_;
  uint64_t model_type_ = 1;  // The default of the format: unigram.
  absl::flat_hash_set<absl::string_view> texts_;  // Of the pieces.
};

absl::Status Parser::Bytes(const ProtobufReader& reader,
                           absl::string_view& out) {
  out = reader.bytes();
  if (reader.wire() == Wire::kBytes) return absl::OkStatus();
  return Damaged(absl::StrCat("field ", reader.field(), " is not bytes"));
}

absl::Status Parser::Number(const ProtobufReader& reader, Wire wire,
                            uint64_t& out) {
  out = reader.number();
  if (reader.wire() == wire) return absl::OkStatus();
  return Damaged(absl::StrCat("field ", reader.field(),
                              " is not the number it should be"));
}

absl::Status Parser::Flag(const ProtobufReader& reader, bool& out) {
  uint64_t number = 0;
  LIMPID_RETURN_IF_ERROR(Number(reader, Wire::kVarint, number));
  out = number != 0;
  return absl::OkStatus();
}

absl::Status Parser::End(const ProtobufReader& reader) {
  return reader.ok() ? absl::OkStatus() : Damaged("not a protobuf message");
}

absl::Status Parser::ReadPiece(absl::string_view message) {
  what_ = absl::StrCat("pieces[", out_.pieces.size(), "]: ");
  if (out_.pieces.size() == static_cast<size_t>(kMaxTokens)) {
    return Damaged(absl::StrCat("more than ", kMaxTokens, " pieces"));
  }
  Piece& piece = out_.pieces.emplace_back();
  ProtobufReader reader(message);
  while (reader.Next()) {
    absl::string_view bytes;
    uint64_t number = 0;
    switch (reader.field()) {
      case 1:
        LIMPID_RETURN_IF_ERROR(Bytes(reader, bytes));
        piece.text = std::string(bytes);
        break;
      case 2:
        LIMPID_RETURN_IF_ERROR(Number(reader, Wire::kFixed32, number));
        piece.score = std::bit_cast<float>(static_cast<uint32_t>(number));
        break;
      case 3:
        LIMPID_RETURN_IF_ERROR(Number(reader, Wire::kVarint, number));
        piece.type = static_cast<Type>(number);
        break;
      default:
        break;
    }
  }
  return End(reader);
}

absl::Status Parser::ReadTrainer(absl::string_view message) {
  what_ = "trainer_spec: ";
  ProtobufReader reader(message);
  while (reader.Next()) {
    switch (reader.field()) {
      case 3:
        LIMPID_RETURN_IF_ERROR(Number(reader, Wire::kVarint, model_type_));
        break;
      case 24:
        LIMPID_RETURN_IF_ERROR(Flag(reader, out_.treat_whitespace_as_suffix));
        break;
      case 35:
        LIMPID_RETURN_IF_ERROR(Flag(reader, out_.byte_fallback));
        break;
      default:  // How it was trained.
        break;
    }
  }
  return End(reader);
}

absl::Status Parser::ReadNormalizer(absl::string_view message) {
  what_ = "normalizer_spec: ";
  ProtobufReader reader(message);
  while (reader.Next()) {
    absl::string_view bytes;
    switch (reader.field()) {
      case 2:
        LIMPID_RETURN_IF_ERROR(Bytes(reader, bytes));
        out_.character_map = std::string(bytes);
        break;
      case 3:
        LIMPID_RETURN_IF_ERROR(Flag(reader, out_.add_dummy_prefix));
        break;
      case 4:
        LIMPID_RETURN_IF_ERROR(Flag(reader, out_.remove_extra_whitespaces));
        break;
      case 5:
        LIMPID_RETURN_IF_ERROR(Flag(reader, out_.escape_whitespaces));
        break;
      default:  // Its name, and what the map was made from.
        break;
    }
  }
  return End(reader);
}

absl::Status Parser::CheckPiece(int32_t id) {
  const Piece& piece = out_.pieces[id];
  what_ = absl::StrCat("pieces[", id, "]: ");
  if (piece.text.empty() || piece.text.size() > kMaxPieceBytes) {
    return Damaged(absl::StrCat("it has ", piece.text.size(),
                                " bytes, must have from 1 to ",
                                kMaxPieceBytes));
  }
  if (FirstBadUtf8(piece.text) < piece.text.size()) {
    return Damaged("it is not UTF-8");
  }
  what_ = absl::StrCat("pieces[", id, "] \"",
                       absl::CEscape(piece.text.substr(0, 80)), "\": ");
  if (std::isnan(piece.score)) return Damaged("its score is not a number");
  uint8_t byte = 0;
  switch (piece.type) {
    case Type::kNormal:
    case Type::kUserDefined:
    case Type::kUnused:
    case Type::kControl:
      break;
    case Type::kUnknown:
      if (out_.unknown_id >= 0) return Damaged("a second unknown piece");
      out_.unknown_id = id;
      break;
    case Type::kByte:
      if (!out_.byte_fallback || !ReadByte(piece.text, byte)) {
        return Damaged(
            "no byte from <0x00> to <0xFF>, or without "
            "trainer_spec.byte_fallback");
      }
      out_.byte_ids[byte] = id;
      break;
    default:
      return TokenizerUnsupported(
          file_, absl::StrCat("pieces[", id, "].type"),
          absl::StrCat(static_cast<uint64_t>(piece.type)));
  }
  if (!texts_.insert(piece.text).second) {
    return Damaged("it is there twice");
  }
  return absl::OkStatus();
}

absl::Status Parser::CheckPieces() {
  for (size_t id = 0; id < out_.pieces.size(); ++id) {
    LIMPID_RETURN_IF_ERROR(CheckPiece(static_cast<int32_t>(id)));
  }
  what_.clear();
  if (out_.unknown_id < 0) return Damaged("there is no unknown piece");
  if (!out_.byte_fallback) return absl::OkStatus();
  for (size_t byte = 0; byte < out_.byte_ids.size(); ++byte) {
    if (out_.byte_ids[byte] < 0) {
      return Damaged(
          absl::StrCat("there is no piece for the byte ", byte,
                       ", though trainer_spec.byte_fallback needs all"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SentencePieceModel> Parser::Parse(absl::string_view model) {
  ProtobufReader reader(model);
  while (reader.Next()) {
    what_.clear();
    absl::string_view bytes;
    if (reader.field() <= 3) {
      LIMPID_RETURN_IF_ERROR(Bytes(reader, bytes));
    }
    switch (reader.field()) {
      case 1:
        LIMPID_RETURN_IF_ERROR(ReadPiece(bytes));
        break;
      case 2:
        LIMPID_RETURN_IF_ERROR(ReadTrainer(bytes));
        break;
      case 3:
        LIMPID_RETURN_IF_ERROR(ReadNormalizer(bytes));
        break;
      default:  // A test of the model on itself, and how ids become text.
        break;
    }
  }
  what_.clear();
  LIMPID_RETURN_IF_ERROR(End(reader));
  if (out_.pieces.empty()) return Damaged("it has no pieces");
  if (model_type_ != kBpe) {
    return TokenizerUnsupported(file_, "trainer_spec.model_type",
                                absl::StrCat("a model of type ", model_type_));
  }
  LIMPID_RETURN_IF_ERROR(CheckPieces());
  return std::move(out_);
}

}  // namespace

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(
    absl::string_view model, const std::string& file) {
  return Parser(file).Parse(model);
}

}  // namespace limpid
