// SPDX-License-Identifier: Apache-2.0
#include "client/decode.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/error_report.h"

namespace limpid {
namespace {

absl::Status Damaged(absl::string_view what) {
  return ClientError(absl::StatusCode::kDataLoss, "STREAM_DAMAGED", what);
}

absl::Status Keep(v1::Tensor tensor, const DecodeLimits& limits,
                  Explanation& explanation) {
  if (static_cast<int64_t>(explanation.tensors.size()) >= limits.max_tensors) {
    return Damaged(absl::StrCat("more than ", limits.max_tensors, " tensors"));
  }
  const std::string name = tensor.header().name();
  if (explanation.tensors.count(name) > 0) {
    return DamagedTensor(tensor.header(), "came twice");
  }
  explanation.tensors.emplace(name, std::move(tensor));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Explanation> DecodeResponse(v1::ExplainResponse response,
                                           const DecodeLimits& limits) {
  Explanation explanation;
  explanation.header = std::move(*response.mutable_header());
  explanation.summary = std::move(*response.mutable_summary());
  for (v1::Tensor& tensor : *response.mutable_tensors()) {
    if (absl::Status s = CheckTensor(tensor, limits.tensor); !s.ok()) return s;
    if (absl::Status s = Keep(std::move(tensor), limits, explanation);
        !s.ok()) {
      return s;
    }
  }
  return explanation;
}

StreamAssembler::StreamAssembler(const StreamObserver& observer,
                                 const DecodeLimits& limits)
    : observer_(observer), limits_(limits) {}

absl::Status StreamAssembler::Add(v1::StreamExplainResponse message) {
  using Part = v1::StreamExplainResponse;
  if (has_summary_) return Damaged("a part came after the summary");
  if (message.part_case() == Part::kHeader) {
    return AddHeader(std::move(*message.mutable_header()));
  }
  if (!has_header_) return Damaged("a part came before the header");
  switch (message.part_case()) {
    case Part::kProgress:
      if (observer_.on_progress) observer_.on_progress(message.progress());
      return absl::OkStatus();
    case Part::kTensor:
      return BeginTensor(std::move(*message.mutable_tensor()));
    case Part::kChunk:
      return AddChunk(message.chunk());
    case Part::kSummary:
      return AddSummary(std::move(*message.mutable_summary()));
    default:
      // A kind of part that a newer server knows.
      return absl::OkStatus();
  }
}

absl::Status StreamAssembler::AddHeader(v1::ExplanationHeader header) {
  if (has_header_) return Damaged("a second header came");
  has_header_ = true;
  explanation_.header = std::move(header);
  if (observer_.on_header) observer_.on_header(explanation_.header);
  return absl::OkStatus();
}

absl::Status StreamAssembler::BeginTensor(v1::TensorHeader header) {
  if (in_tensor_) {
    return DamagedTensor(tensor_.header(), "incomplete when the next began");
  }
  if (absl::Status s = CheckHeader(header, limits_.tensor); !s.ok()) return s;
  // Both are at most max_total_bytes here, so the sum can't overflow.
  if (header.num_bytes() > limits_.max_total_bytes ||
      total_bytes_ + header.num_bytes() > limits_.max_total_bytes) {
    return Damaged(absl::StrCat("more than ", limits_.max_total_bytes,
                                " bytes of tensors"));
  }
  total_bytes_ += header.num_bytes();
  tensor_.Clear();
  *tensor_.mutable_header() = std::move(header);
  crc_ = 0;
  in_tensor_ = true;
  return tensor_.header().num_bytes() == 0 ? CompleteTensor()
                                           : absl::OkStatus();
}

absl::Status StreamAssembler::AddChunk(const v1::TensorChunk& chunk) {
  if (!in_tensor_) return Damaged("a chunk came outside of a tensor");
  const v1::TensorHeader& header = tensor_.header();
  if (chunk.name() != header.name()) {
    return DamagedTensor(header, "got a chunk of another tensor");
  }
  std::string& data = *tensor_.mutable_data();
  if (chunk.offset() != static_cast<int64_t>(data.size())) {
    return DamagedTensor(header, absl::StrCat("chunk at byte ", chunk.offset(),
                                              ", expected ", data.size()));
  }
  if (chunk.data().size() >
      static_cast<uint64_t>(header.num_bytes()) - data.size()) {
    return DamagedTensor(header, "more bytes than announced");
  }
  data.append(chunk.data());
  crc_ = Crc32(chunk.data(), crc_);
  return static_cast<int64_t>(data.size()) == header.num_bytes()
             ? CompleteTensor()
             : absl::OkStatus();
}

absl::Status StreamAssembler::CompleteTensor() {
  in_tensor_ = false;
  if (crc_ != tensor_.header().crc32()) {
    return DamagedTensor(tensor_.header(), "wrong checksum");
  }
  const std::string name = tensor_.header().name();
  if (absl::Status s = Keep(std::move(tensor_), limits_, explanation_);
      !s.ok()) {
    return s;
  }
  tensor_ = v1::Tensor();
  if (observer_.on_tensor) observer_.on_tensor(explanation_.tensors.at(name));
  return absl::OkStatus();
}

absl::Status StreamAssembler::AddSummary(v1::ExplanationSummary summary) {
  if (in_tensor_) {
    return DamagedTensor(tensor_.header(), "incomplete when the summary came");
  }
  if (summary.num_tensors() !=
      static_cast<int64_t>(explanation_.tensors.size())) {
    return Damaged(absl::StrCat(explanation_.tensors.size(),
                                " tensors came, the summary counts ",
                                summary.num_tensors()));
  }
  explanation_.summary = std::move(summary);
  has_summary_ = true;
  return absl::OkStatus();
}

absl::StatusOr<Explanation> StreamAssembler::Finish() {
  if (!has_summary_) return Damaged("the stream ended without a summary");
  return std::move(explanation_);
}

}  // namespace limpid
