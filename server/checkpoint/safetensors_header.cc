// SPDX-License-Identifier: Apache-2.0
//
// A header is read event by event instead of into a tree: a tree would merge
// tensors of the same name silently, and hostile text could make it many times
// larger than the file.
#include "server/checkpoint/safetensors_header.h"

#include <cstddef>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

using Json = nlohmann::json;

// More than any tensor library can hold.
constexpr size_t kMaxRank = 64;
constexpr char kMetadata[] = "__metadata__";

// Takes the parser's events. Every method returns false to stop parsing.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(SafetensorsHeader& header, Damage& damage)
      : header_(header), damage_(damage) {}

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTopValue:
        if (in_metadata_) {
          place_ = Place::kMetadata;
        } else {
          place_ = Place::kTensor;
          entry_ = TensorEntry();
          has_dtype_ = has_shape_ = has_offsets_ = false;
        }
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool end_object() override {
    if (place_ == Place::kTop) {
      place_ = Place::kEnd;
      return true;
    }
    if (place_ == Place::kTensor) {
      if (!has_dtype_) return Fail("\"dtype\" is missing");
      if (!has_shape_) return Fail("\"shape\" is missing");
      if (!has_offsets_) return Fail("\"data_offsets\" is missing");
      header_.tensors[tensor_] = std::move(entry_);
    }
    place_ = Place::kTop;
    tensor_.clear();
    return true;
  }

  bool key(string_t& name) override {
    switch (place_) {
      case Place::kTop:
        return TopKey(name);
      case Place::kMetadata:
        metadata_key_ = name;
        if (header_.metadata.count(name) > 0) {
          return Fail(absl::StrCat("the key \"", name.substr(0, 100),
                                   "\" is twice in ", kMetadata));
        }
        place_ = Place::kMetadataValue;
        return true;
      case Place::kTensor:
        return TensorKey(name);
      default:
        return Unexpected("a key");
    }
  }

  bool start_array(size_t) override {
    if (!in_array_ && (place_ == Place::kShape || place_ == Place::kOffsets)) {
      numbers_.clear();
      in_array_ = true;
      return true;
    }
    return Unexpected("an array");
  }

  bool end_array() override {
    in_array_ = false;
    if (place_ == Place::kShape) {
      entry_.shape.assign(numbers_.begin(), numbers_.end());
    } else {
      if (numbers_.size() != 2) {
        return Fail("\"data_offsets\" is not a pair of numbers");
      }
      entry_.begin = numbers_[0];
      entry_.end = numbers_[1];
    }
    place_ = Place::kTensor;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (!in_array_) return Unexpected("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(absl::StrCat("the number ", value, " is too large"));
    }
    if (numbers_.size() == kMaxRank) {
      return Fail(absl::StrCat("a list has more than ", kMaxRank, " numbers"));
    }
    numbers_.push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadataValue) {
      header_.metadata[metadata_key_] = std::move(value);
      place_ = Place::kMetadata;
      return true;
    }
    if (place_ == Place::kDType) {
      if (!DTypeFromName(value, entry_.dtype)) {
        return Fail(
            absl::StrCat("unknown dtype \"", value.substr(0, 40), "\""));
      }
      place_ = Place::kTensor;
      return true;
    }
    return Unexpected("a string");
  }

  bool number_integer(number_integer_t value) override {
    return in_array_ ? Fail(absl::StrCat("the number ", value, " is negative"))
                     : Unexpected("a number");
  }
  bool number_float(number_float_t, const string_t& text) override {
    return in_array_ ? Fail(absl::StrCat("the number ", text.substr(0, 40),
                                         " is not an integer"))
                     : Unexpected("a number");
  }
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a truth value"); }
  bool binary(binary_t&) override { return Unexpected("binary"); }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(
        absl::StrCat("the header is not UTF-8 JSON at its byte ", position));
  }

 private:
  // Where in the header the next event comes from.
  enum class Place {
    kStart,
    kTop,
    kTopValue,
    kMetadata,
    kMetadataValue,
    kTensor,
    kDType,
    kShape,
    kOffsets,
    kEnd
  };

  bool TopKey(const std::string& name) {
    in_metadata_ = name == kMetadata;
    if (in_metadata_) {
      if (std::exchange(seen_metadata_, true)) {
        return Fail(absl::StrCat(kMetadata, " is in the header twice"));
      }
    } else {
      tensor_ = name;
      if (header_.tensors.count(name) > 0) {
        return Fail("the name is in the header twice");
      }
    }
    place_ = Place::kTopValue;
    return true;
  }

  bool TensorKey(const std::string& name) {
    bool* seen = nullptr;
    if (name == "dtype") {
      seen = &has_dtype_;
      place_ = Place::kDType;
    } else if (name == "shape") {
      seen = &has_shape_;
      place_ = Place::kShape;
    } else if (name == "data_offsets") {
      seen = &has_offsets_;
      place_ = Place::kOffsets;
    } else {
      return Fail(absl::StrCat("unknown key \"", name.substr(0, 40), "\""));
    }
    if (std::exchange(*seen, true)) {
      return Fail(absl::StrCat("\"", name, "\" is there twice"));
    }
    return true;
  }

  bool Unexpected(absl::string_view what) {
    switch (place_) {
      case Place::kStart:
        return Fail("the header is not a JSON object");
      case Place::kTopValue:
        return Fail(absl::StrCat(in_metadata_ ? kMetadata : "the description",
                                 " is ", what, " instead of an object"));
      case Place::kMetadataValue:
        return Fail(
            absl::StrCat(kMetadata, " holds ", what, " instead of a string"));
      case Place::kDType:
        return Fail(absl::StrCat("\"dtype\" is ", what));
      case Place::kShape:
      case Place::kOffsets:
        return Fail(absl::StrCat(
            place_ == Place::kShape ? "\"shape\"" : "\"data_offsets\"",
            in_array_ ? " holds " : " is ", what));
      default:
        return Fail(absl::StrCat("unexpected ", what, " in the header"));
    }
  }

  bool Fail(std::string what) {
    damage_.what = std::move(what);
    damage_.tensor = tensor_;
    return false;
  }

  SafetensorsHeader& header_;
  Damage& damage_;
  Place place_ = Place::kStart;
  bool in_metadata_ = false, seen_metadata_ = false, in_array_ = false;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  std::string tensor_;  // Being read; empty between tensors.
  std::string metadata_key_;
  TensorEntry entry_;
  std::vector<uint64_t> numbers_;
};

}  // namespace

bool ParseSafetensorsHeader(absl::string_view text, SafetensorsHeader& header,
                            Damage& damage) {
  // The format wants the brace to be the first byte (a parser would skip white
  // space and byte order marks), and the parser takes NUL for the end.
  if (text.empty() || text[0] != '{') {
    damage.what = "the header does not start with \"{\"";
    return false;
  }
  if (text.find('\0') != absl::string_view::npos) {
    damage.what = "the header contains a NUL byte";
    return false;
  }
  HeaderReader reader(header, damage);
  if (Json::sax_parse(text.begin(), text.end(), &reader)) return true;
  if (damage.what.empty()) damage.what = "the header is not JSON";
  return false;
}

}  // namespace limpid
