// SPDX-License-Identifier: Apache-2.0
#include "client/cli/request_builder.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cli/flag_values.h"
#include "client/files.h"
#include "client/tensor_codec.h"
#include "server/checkpoint/safetensors.h"

namespace limpid::cli {
namespace {

absl::Status InFlag(const std::string& flag, const absl::Status& status) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", status.message()));
}

// Parses the value of a flag, if it was written, and hands it on.
template <class Parse, class Set>
absl::Status Take(const std::string& flag,
                  const std::optional<std::string>& text, Parse parse,
                  Set set) {
  if (!text) return absl::OkStatus();
  auto value = parse(*text);
  if (!value.ok()) return InFlag(flag, value.status());
  set(*std::move(value));
  return absl::OkStatus();
}

// The same for the values of an enum.
template <class Enum, class Set>
absl::Status TakeEnum(const std::string& flag,
                      const std::optional<std::string>& text, Set set) {
  const auto parse = [](const std::string& name) {
    return ParseEnum(google::protobuf::GetEnumDescriptor<Enum>(), name);
  };
  return Take(flag, text, parse,
              [&set](int value) { set(static_cast<Enum>(value)); });
}

absl::StatusOr<v1::DataType> WireType(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return v1::DATA_TYPE_FLOAT32;
    case DType::kFloat64:
      return v1::DATA_TYPE_FLOAT64;
    case DType::kFloat16:
      return v1::DATA_TYPE_FLOAT16;
    case DType::kInt64:
      return v1::DATA_TYPE_INT64;
    case DType::kUint8:
      return v1::DATA_TYPE_UINT8;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("`pixels` has type ", DTypeName(dtype),
                       ", which can't be sent; float32 is expected"));
  }
}

absl::StatusOr<v1::Tensor> ReadPixels(const std::string& path) {
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  const auto found = file->tensors().find("pixels");
  if (found == file->tensors().end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has no tensor `pixels`"));
  }
  const TensorView& view = found->second;
  const absl::StatusOr<v1::DataType> type = WireType(view.dtype);
  if (!type.ok()) return type.status();
  v1::Tensor tensor;
  tensor.set_data(view.data.data(), view.data.size());
  v1::TensorHeader& header = *tensor.mutable_header();
  header.set_name("pixels");
  header.set_data_type(*type);
  header.set_layout(v1::TENSOR_LAYOUT_ROW_MAJOR);
  for (const int64_t size : view.shape) header.add_shape(size);
  header.set_num_bytes(static_cast<int64_t>(view.data.size()));
  header.set_crc32(Crc32(tensor.data()));
  return tensor;
}

absl::Status FillPoint(const ExplainFlags& flags, v1::ExplainRequest& request) {
  absl::Status status = Take("--position", flags.position, ParsePositions,
                             [&](std::vector<v1::Position> positions) {
                               for (v1::Position& position : positions) {
                                 *request.add_points()->mutable_position() =
                                     std::move(position);
                               }
                             });
  status.Update(
      Take("--target", flags.target, ParseTarget, [&](v1::Target target) {
        if (request.points().empty()) request.add_points();
        for (v1::Point& point : *request.mutable_points()) {
          *point.mutable_target() = target;
        }
      }));
  return status;
}

absl::Status FillAttention(const ExplainFlags& flags,
                           v1::ExplainRequest& request) {
  absl::Status status = TakeEnum<v1::AttentionKind>(
      "--attention", flags.attention, [&](v1::AttentionKind kind) {
        request.mutable_attention()->set_kind(kind);
      });
  status.Update(TakeEnum<v1::ChannelReduction>(
      "--channels", flags.channels, [&](v1::ChannelReduction reduction) {
        request.mutable_attention()->set_channel_reduction(reduction);
      }));
  status.Update(TakeEnum<v1::AttentionForm>(
      "--form", flags.form, [&](v1::AttentionForm form) {
        request.mutable_attention()->set_form(form);
      }));
  status.Update(Take("--layers", flags.layers, ParseNumbers,
                     [&](const std::vector<int32_t>& layers) {
                       request.mutable_attention()->mutable_layers()->Add(
                           layers.begin(), layers.end());
                     }));
  status.Update(
      Take("--include-skip", flags.include_skip, ParseBool, [&](bool include) {
        request.mutable_attention()->set_include_skip(include);
      }));
  status.Update(Take("--channel-list", flags.channel_list, ParseNumbers,
                     [&](const std::vector<int32_t>& channels) {
                       request.mutable_attention()->mutable_channels()->Add(
                           channels.begin(), channels.end());
                     }));
  status.Update(
      Take("--downsample", flags.downsample, ParseInt32, [&](int32_t block) {
        request.mutable_attention()->set_downsample(block);
      }));
  status.Update(Take(
      "--attention-top-k", flags.attention_top_k, ParseInt32,
      [&](int32_t count) { request.mutable_attention()->set_top_k(count); }));
  const auto parse_type = [](const std::string& name) {
    return ParseEnum(v1::DataType_descriptor(), name);
  };
  status.Update(Take("--dtype", flags.dtype, parse_type, [&](int type) {
    request.mutable_output()->set_attention_data_type(
        static_cast<v1::DataType>(type));
  }));
  if (flags.head_form) request.mutable_attention()->set_head_form(true);
  return status;
}

}  // namespace

absl::StatusOr<v1::ExplainRequest> BuildRequest(const ExplainFlags& flags) {
  v1::ExplainRequest request;
  request.set_model(flags.model);
  if (flags.method) request.set_method(*flags.method);
  request.set_validate_only(flags.validate_only);
  absl::Status status = FillPoint(flags, request);
  status.Update(FillAttention(flags, request));
  for (const std::string& option : flags.options) {
    const absl::Status set =
        SetMethodOption(option, *request.mutable_options());
    if (!set.ok()) status.Update(InFlag("--option", set));
  }
  status.Update(TakeEnum<v1::Precision>(
      "--precision", flags.precision,
      [&](v1::Precision precision) { request.set_precision(precision); }));
  status.Update(Take("--top-k", flags.top_k, ParseInt32, [&](int32_t count) {
    request.mutable_output()->set_top_k(count);
  }));
  status.Update(Take("--aggregate", flags.aggregate, ParseAggregation,
                     [&](v1::Aggregation aggregation) {
                       *request.mutable_aggregation() = std::move(aggregation);
                     }));
  if (!status.ok()) return status;
  if (flags.faithfulness) request.mutable_faithfulness()->set_enabled(true);
  // A saved explanation is complete: whoever opens it later can't ask again.
  if (flags.logits || flags.save || flags.out) {
    request.mutable_output()->set_logits(true);
  }
  if (flags.debug_tensors) request.mutable_output()->set_debug_tensors(true);
  return request;
}

absl::StatusOr<v1::Input> BuildInput(const ExplainFlags& flags) {
  v1::Input input;
  if (flags.text) input.set_text(*flags.text);
  absl::Status status =
      Take("--text-file", flags.text_file, ReadWholeFile,
           [&](std::string bytes) { input.set_text(std::move(bytes)); });
  status.Update(
      Take("--image", flags.image, ReadWholeFile,
           [&](std::string bytes) { input.set_image(std::move(bytes)); }));
  status.Update(Take("--tokens", flags.tokens, ParseTokenIds,
                     [&](const std::vector<int64_t>& ids) {
                       input.mutable_tokens()->mutable_ids()->Add(ids.begin(),
                                                                  ids.end());
                     }));
  status.Update(Take(
      "--pixels", flags.pixels, ReadPixels,
      [&](v1::Tensor pixels) { *input.mutable_pixels() = std::move(pixels); }));
  if (!status.ok()) return status;
  return input;
}

}  // namespace limpid::cli
