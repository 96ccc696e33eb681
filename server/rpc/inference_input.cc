// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/inference_input.h"

#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/safe_text.h"

namespace limpid {
namespace {

static_assert(std::endian::native == std::endian::little,
              "packed tensors are copied as they are in memory");

using InputTensor = inference::ModelInferRequest::InferInputTensor;

// The product of a shape's sizes; nothing if one is not positive or the product
// overflows.
std::optional<int64_t> NumElements(const InputTensor& tensor) {
  int64_t product = 1;
  for (const int64_t size : tensor.shape()) {
    if (size < 1 || __builtin_mul_overflow(product, size, &product)) {
      return std::nullopt;
    }
  }
  return product;
}

// One input tensor: its elements, wherever they are.
class TensorReader {
 public:
  // `raw`: its packed elements, or null.
  TensorReader(const InputTensor& tensor, const std::string* raw,
               std::string path, Violations& violations)
      : tensor_(tensor),
        raw_(raw),
        path_(std::move(path)),
        violations_(violations) {}

  const std::string& path() const { return path_; }

  void Wrong(absl::string_view field, absl::string_view what) {
    violations_.Add(absl::StrCat(path_, field), what);
  }

  // The only element of a tensor of BYTES.
  std::optional<std::string> OneString() {
    if (!HasType("BYTES") || !HasElements(1)) return std::nullopt;
    if (raw_ == nullptr) {
      if (tensor_.contents().bytes_contents_size() != 1) {
        Wrong(".contents.bytes_contents", "must have one element");
        return std::nullopt;
      }
      return tensor_.contents().bytes_contents(0);
    }
    uint32_t size = 0;
    if (raw_->size() >= sizeof(size)) {
      std::memcpy(&size, raw_->data(), sizeof(size));
    }
    if (raw_->size() != sizeof(size) + size_t{size}) {
      Wrong("", absl::StrCat("has ", raw_->size(),
                             " packed bytes, which are not one element with "
                             "its length of 4 bytes before it"));
      return std::nullopt;
    }
    return raw_->substr(sizeof(size));
  }

  // All elements of a tensor of FP32, INT64 or INT32, in `typed` or packed.
  template <typename T, typename Field>
  std::vector<T> Numbers(const char* type, const Field& typed) {
    const auto expected = NumElements(tensor_);
    if (!expected) {
      Wrong(".shape", "must have positive sizes");
      return {};
    }
    const size_t given =
        raw_ == nullptr ? typed.size() : raw_->size() / sizeof(T);
    if (given != static_cast<size_t>(*expected) ||
        (raw_ != nullptr && raw_->size() % sizeof(T) != 0)) {
      Wrong("", absl::StrCat("has ", given, " elements of ", type,
                             ", its shape says ", *expected));
      return {};
    }
    if (raw_ == nullptr) return {typed.begin(), typed.end()};
    std::vector<T> values(given);
    std::memcpy(values.data(), raw_->data(), raw_->size());
    return values;
  }

  bool HasType(absl::string_view type) {
    if (tensor_.datatype() == type) return true;
    Wrong(".datatype", absl::StrCat("must be ", type, ", not ",
                                    SafeText(tensor_.datatype())));
    return false;
  }

 private:
  bool HasElements(int64_t number) {
    if (NumElements(tensor_) == number) return true;
    Wrong(".shape", absl::StrCat("must have ", number, " element"));
    return false;
  }

  const InputTensor& tensor_;
  const std::string* const raw_;
  const std::string path_;
  Violations& violations_;
};

void ReadTokens(const InputTensor& tensor, TensorReader& reader,
                v1::Input& input) {
  auto& ids = *input.mutable_tokens()->mutable_ids();
  const auto& contents = tensor.contents();
  if (tensor.datatype() == "INT32") {
    const auto narrow =
        reader.Numbers<int32_t>("INT32", contents.int_contents());
    ids.Add(narrow.begin(), narrow.end());
  } else if (reader.HasType("INT64")) {
    const auto wide =
        reader.Numbers<int64_t>("INT64", contents.int64_contents());
    ids.Add(wide.begin(), wide.end());
  }
}

void ReadPixels(const InputTensor& tensor, TensorReader& reader,
                v1::Input& input) {
  if (!reader.HasType("FP32")) return;
  const auto values =
      reader.Numbers<float>("FP32", tensor.contents().fp32_contents());
  v1::Tensor& pixels = *input.mutable_pixels();
  pixels.mutable_header()->set_data_type(v1::DATA_TYPE_FLOAT32);
  // A batch of one picture is one picture.
  const int batch = tensor.shape_size() == 4 && tensor.shape(0) == 1 ? 1 : 0;
  for (int i = batch; i < tensor.shape_size(); ++i) {
    pixels.mutable_header()->add_shape(tensor.shape(i));
  }
  pixels.mutable_data()->assign(reinterpret_cast<const char*>(values.data()),
                                values.size() * sizeof(float));
}

void ReadInput(const InputTensor& tensor, TensorReader& reader,
               v1::Input& input) {
  for (const auto& [name, value] : tensor.parameters()) {
    if (name == kContentType) continue;
    reader.Wrong(absl::StrCat(".parameters[\"", SafeText(name), "\"]"),
                 "no such parameter");
  }
  if (tensor.name() == "text") {
    if (auto text = reader.OneString()) {
      const size_t bad = FindInvalidUtf8(*text);
      if (bad != absl::string_view::npos) {
        return reader.Wrong(
            "", absl::StrCat("is not UTF-8: the byte at offset ", bad,
                             " starts no character"));
      }
      input.set_text(*std::move(text));
    }
  } else if (tensor.name() == "image") {
    if (auto file = reader.OneString()) input.set_image(*std::move(file));
  } else if (tensor.name() == "tokens") {
    ReadTokens(tensor, reader, input);
  } else if (tensor.name() == "pixels") {
    ReadPixels(tensor, reader, input);
  } else {
    reader.Wrong(".name", "must be text, tokens, image or pixels");
  }
}

}  // namespace

void ReadInferenceInput(const inference::ModelInferRequest& message,
                        v1::Input& input, Violations& violations) {
  if (message.inputs_size() != 1) {
    return violations.Add(
        "inputs",
        absl::StrCat("must have one tensor, not ", message.inputs_size(),
                     ": text, tokens, image or pixels"));
  }
  const bool raw = message.raw_input_contents_size() > 0;
  if (message.raw_input_contents_size() > 1) {
    return violations.Add("raw_input_contents", "has more than one element");
  }
  const InputTensor& tensor = message.inputs(0);
  if (raw && tensor.has_contents()) {
    return violations.Add("inputs[0].contents",
                          "must not be set beside raw_input_contents");
  }
  TensorReader reader(tensor, raw ? &message.raw_input_contents(0) : nullptr,
                      "inputs[0]", violations);
  ReadInput(tensor, reader, input);
}

}  // namespace limpid
