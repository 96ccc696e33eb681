// SPDX-License-Identifier: Apache-2.0
#include "server/input/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/base/json_guard.h"
#include "server/input/json_part.h"
#include "server/input/tokenizer_errors.h"

namespace limpid {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 64;
constexpr int64_t kMaxValues = 16'000'000;

// The "type" of a part; empty if it has none.
std::string TypeOf(const Json& json) {
  if (!json.is_object()) return "";
  const auto type = json.find("type");
  if (type == json.end() || !type->is_string()) return "";
  return type->get<std::string>();
}

// An object of a pipeline, or the list of them under `list` if it is a
// "Sequence". Missing parts give none.
absl::StatusOr<std::vector<const Json*>> Steps(const std::string& file,
                                               const std::string& part,
                                               const Json* json,
                                               const char* list) {
  if (json == nullptr) return std::vector<const Json*>();
  if (TypeOf(*json) != "Sequence") return std::vector<const Json*>{json};
  JsonPart reader(file, part, *json);
  reader.Ignore("type");
  const Json* items = reader.Get(list);
  if (items == nullptr || !items->is_array()) {
    reader.Damage(absl::StrCat(reader.Path(list), " is not a list"));
  }
  LIMPID_RETURN_IF_ERROR(reader.Finish());
  std::vector<const Json*> out;
  for (const Json& item : *items) out.push_back(&item);
  return out;
}

absl::Status ReadNormalizer(const std::string& file, const Json* json,
                            TokenizerSpec& spec) {
  LIMPID_ASSIGN_OR_RETURN(std::vector<const Json*> steps,
                          Steps(file, "normalizer", json, "normalizers"));
  for (const Json* step : steps) {
    JsonPart reader(file, "normalizer", *step);
    const std::string type = reader.String("type");
    if (type != "NFC") {
      reader.Unsupported("type", absl::CEscape(type.substr(0, 80)));
    }
    LIMPID_RETURN_IF_ERROR(reader.Finish());
    spec.nfc = true;  // Twice is as good as once.
  }
  return absl::OkStatus();
}

absl::Status ReadSplit(const std::string& file, JsonPart& reader,
                       SplitStep& step) {
  step.invert = reader.Bool("invert", false);
  reader.Only("behavior", {"Isolated", "Removed"});
  step.remove = reader.String("behavior") == "Removed";
  const Json nothing;
  const Json* pattern = reader.Get("pattern");
  JsonPart inner(file, reader.Path("pattern"),
                 pattern == nullptr ? nothing : *pattern);
  if (inner.Get("String") != nullptr) {
    step.kind = SplitStep::Kind::kLiteral;
    step.literal = inner.String("String");
    if (step.literal.empty()) inner.Damage("a split at the empty text");
    return inner.Finish();
  }
  step.kind = SplitStep::Kind::kRegex;
  const std::string text = inner.String("Regex");
  LIMPID_RETURN_IF_ERROR(inner.Finish());
  absl::StatusOr<SplitRegex> regex = SplitRegex::Create(text);
  if (!regex.ok()) {
    return TokenizerUnsupported(file, inner.Path("Regex"),
                                regex.status().message());
  }
  step.regex.push_back(*std::move(regex));
  return absl::OkStatus();
}

absl::Status ReadPretokenizer(const std::string& file, const Json* json,
                              Pretokenizer::Options& out) {
  const std::string part = "pre_tokenizer";
  LIMPID_ASSIGN_OR_RETURN(std::vector<const Json*> steps,
                          Steps(file, part, json, "pretokenizers"));
  bool is_bytes = false;
  for (const Json* json_step : steps) {
    JsonPart reader(file, part, *json_step);
    const std::string type = reader.String("type");
    if (is_bytes) {
      // It would see the spelling of bytes, not the text.
      reader.Unsupported("type", absl::StrCat(type, " behind ByteLevel"));
    } else if (type == "ByteLevel") {
      is_bytes = true;
      out.add_prefix_space = reader.Bool("add_prefix_space", true);
      out.use_regex = reader.Bool("use_regex", true);
      reader.Bool("trim_offsets", true);  // About offsets only.
    } else if (type == "Split") {
      LIMPID_RETURN_IF_ERROR(ReadSplit(file, reader, out.steps.emplace_back()));
    } else if (type == "Digits") {
      SplitStep& step = out.steps.emplace_back();
      step.kind = SplitStep::Kind::kDigits;
      step.individual_digits = reader.Bool("individual_digits", false);
    } else {
      reader.Unsupported("type", absl::CEscape(type.substr(0, 80)));
    }
    LIMPID_RETURN_IF_ERROR(reader.Finish());
  }
  if (!is_bytes) {
    return TokenizerUnsupported(file, part, "there is no ByteLevel");
  }
  return absl::OkStatus();
}

bool ReadId(const Json* json, int64_t& id) {
  if (json == nullptr || !json->is_number_unsigned()) return false;
  const uint64_t number = json->get<uint64_t>();
  id = static_cast<int64_t>(number);
  return number < static_cast<uint64_t>(kMaxTokens);
}

absl::Status ReadAddedTokens(const std::string& file, const Json* json,
                             std::vector<AddedToken>& out) {
  if (json == nullptr) return absl::OkStatus();
  if (!json->is_array()) {
    return TokenizerDamaged(file, "added_tokens is not a list");
  }
  for (const Json& item : *json) {
    JsonPart reader(file, absl::StrCat("added_tokens[", out.size(), "]"), item);
    AddedToken& token = out.emplace_back();
    if (!ReadId(reader.Get("id"), token.id)) {
      reader.Damage(absl::StrCat(reader.Path("id"), " is no token id below ",
                                 kMaxTokens));
    }
    token.content = reader.String("content");
    token.special = reader.Bool("special", false);
    token.normalized = reader.Bool("normalized", !token.special);
    token.lstrip = reader.Bool("lstrip", false);
    token.rstrip = reader.Bool("rstrip", false);
    token.single_word = reader.Bool("single_word", false);
    LIMPID_RETURN_IF_ERROR(reader.Finish());
  }
  return absl::OkStatus();
}

// "a b" or ["a", "b"].
bool ReadMerge(const Json& json, std::pair<std::string, std::string>& out) {
  if (json.is_array()) {
    if (json.size() != 2 || !json[0].is_string() || !json[1].is_string()) {
      return false;
    }
    out = {json[0].get<std::string>(), json[1].get<std::string>()};
    return true;
  }
  if (!json.is_string()) return false;
  const std::string& text = json.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string::npos ||
      text.find(' ', space + 1) != std::string::npos) {
    return false;
  }
  out = {text.substr(0, space), text.substr(space + 1)};
  return true;
}

absl::Status ReadModel(const std::string& file, const Json* json,
                       TokenizerSpec& spec) {
  if (json == nullptr) return TokenizerDamaged(file, "model is missing");
  JsonPart reader(file, "model", *json);
  reader.Only("type", {"BPE"});
  reader.Only("dropout", {0.0});
  reader.Only("continuing_subword_prefix", {""});
  reader.Only("end_of_word_suffix", {""});
  reader.Only("byte_fallback", {false});
  reader.Ignore("fuse_unk");  // About unknown characters only.
  spec.has_unknown_token = reader.Get("unk_token") != nullptr;
  spec.ignore_merges = reader.Bool("ignore_merges", false);
  const Json* vocabulary = reader.Get("vocab");
  const Json* merges = reader.Get("merges");
  LIMPID_RETURN_IF_ERROR(reader.Finish());
  if (vocabulary == nullptr || !vocabulary->is_object() || merges == nullptr ||
      !merges->is_array()) {
    return TokenizerDamaged(
        file, "model.vocab is not an object, or model.merges not a list");
  }
  for (const auto& [token, id] : vocabulary->items()) {
    int64_t number = 0;
    if (!ReadId(&id, number)) {
      return TokenizerDamaged(
          file, absl::StrCat("model.vocab: the id of \"",
                             absl::CEscape(token.substr(0, 80)), "\" is ",
                             ShownInMessage(id), ", must be from 0 to ",
                             kMaxTokens - 1));
    }
    spec.vocabulary.emplace_back(token, static_cast<int32_t>(number));
  }
  for (const Json& merge : *merges) {
    if (!ReadMerge(merge, spec.merges.emplace_back())) {
      return TokenizerDamaged(
          file, absl::StrCat("model.merges[", spec.merges.size() - 1,
                             "] is not a pair of tokens"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view text,
                                                 const std::string& file) {
  if (!IsTameJson(text, kMaxDepth, kMaxValues)) {
    return TokenizerDamaged(
        file, "nested too deep, too many values, or a NUL byte in it");
  }
  const Json json = Json::parse(text.begin(), text.end(), nullptr,
                                /*allow_exceptions=*/false);
  if (json.is_discarded()) return TokenizerDamaged(file, "not JSON");
  if (!json.is_object()) return TokenizerDamaged(file, "not a JSON object");
  JsonPart reader(file, "", json);
  reader.Only("version", {"1.0"});
  // How batches are cut and filled, what is put around a text, and how ids
  // become text: all of that is done elsewhere or not at all.
  reader.Ignore("truncation");
  reader.Ignore("padding");
  reader.Ignore("post_processor");
  if (const Json* decoder = reader.Get("decoder")) {
    if (TypeOf(*decoder) != "ByteLevel") {
      reader.Unsupported("decoder", "a decoder other than ByteLevel");
    }
  }
  const Json* normalizer = reader.Get("normalizer");
  const Json* pretokenizer = reader.Get("pre_tokenizer");
  const Json* added_tokens = reader.Get("added_tokens");
  const Json* model = reader.Get("model");
  LIMPID_RETURN_IF_ERROR(reader.Finish());
  TokenizerSpec spec;
  LIMPID_RETURN_IF_ERROR(ReadNormalizer(file, normalizer, spec));
  LIMPID_RETURN_IF_ERROR(
      ReadPretokenizer(file, pretokenizer, spec.pretokenizer));
  LIMPID_RETURN_IF_ERROR(
      ReadAddedTokens(file, added_tokens, spec.added_tokens));
  LIMPID_RETURN_IF_ERROR(ReadModel(file, model, spec));
  return spec;
}

}  // namespace limpid
