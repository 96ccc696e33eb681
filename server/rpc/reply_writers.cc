// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/reply_writers.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/render/heatmap_png.h"
#include "server/rpc/encode.h"

namespace limpid {

absl::Status UnaryWriter::Header(v1::ExplanationHeader header) {
  *response_.mutable_header() = std::move(header);
  return absl::OkStatus();
}

absl::Status UnaryWriter::Progress(const v1::Progress&) {
  return absl::OkStatus();
}

absl::Status UnaryWriter::Tensor(v1::Tensor tensor) {
  *response_.add_tensors() = std::move(tensor);
  return absl::OkStatus();
}

absl::Status UnaryWriter::Summary(v1::ExplanationSummary summary) {
  *response_.mutable_summary() = std::move(summary);
  return absl::OkStatus();
}

bool UnaryWriter::Restart() {
  response_.Clear();
  return true;
}

absl::Status StreamWriter::Header(v1::ExplanationHeader header) {
  v1::StreamExplainResponse part;
  *part.mutable_header() = std::move(header);
  return stream_.Write(part);
}

absl::Status StreamWriter::Progress(const v1::Progress& progress) {
  v1::StreamExplainResponse part;
  *part.mutable_progress() = progress;
  return stream_.Write(part);
}

absl::Status StreamWriter::Tensor(v1::Tensor tensor) {
  v1::StreamExplainResponse announcement;
  *announcement.mutable_tensor() = tensor.header();
  LIMPID_RETURN_IF_ERROR(stream_.Write(announcement));
  Call& call = stream_.call();
  if (call.explained.first_chunk == absl::ZeroDuration()) {
    call.explained.first_chunk = absl::Now() - call.start();
  }
  const std::string& data = tensor.data();
  for (size_t offset = 0; offset < data.size(); offset += kMaxChunkBytes) {
    v1::StreamExplainResponse part;
    v1::TensorChunk& chunk = *part.mutable_chunk();
    chunk.set_name(tensor.header().name());
    chunk.set_offset(static_cast<int64_t>(offset));
    chunk.set_data(data.substr(offset, kMaxChunkBytes));
    LIMPID_RETURN_IF_ERROR(stream_.Write(part));
  }
  return absl::OkStatus();
}

absl::Status StreamWriter::Summary(v1::ExplanationSummary summary) {
  v1::StreamExplainResponse part;
  *part.mutable_summary() = std::move(summary);
  return stream_.Write(part);
}

absl::Status HeatmapWriter::Header(v1::ExplanationHeader header) {
  header_ = std::move(header);
  return absl::OkStatus();
}

absl::Status HeatmapWriter::Progress(const v1::Progress&) {
  return absl::OkStatus();
}

absl::Status HeatmapWriter::Tensor(v1::Tensor tensor) {
  if (tensor.header().name() == "attribution" &&
      tensor.header().data_type() == v1::DATA_TYPE_FLOAT32) {
    attribution_.resize(tensor.data().size() / sizeof(float));
    std::memcpy(attribution_.data(), tensor.data().data(),
                attribution_.size() * sizeof(float));
  }
  return absl::OkStatus();
}

absl::Status HeatmapWriter::Summary(v1::ExplanationSummary summary) {
  summary_ = std::move(summary);
  return absl::OkStatus();
}

bool HeatmapWriter::Restart() {
  *this = HeatmapWriter();
  return true;
}

absl::StatusOr<google::api::HttpBody> HeatmapWriter::Draw() const {
  if (attribution_.empty()) {
    return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                     "the engine returned no attribution");
  }
  render::Caption caption;
  caption.title = absl::StrCat(header_.model(), ", ", header_.method());
  if (summary_.predictions_size() > 0) {
    const v1::Candidate& first = summary_.predictions(0);
    caption.lines.push_back(absl::StrFormat(
        "position %d, predicted %s (%d), probability %.3f", header_.position(),
        first.piece(), first.id(), first.probability()));
  }
  absl::StatusOr<std::string> png;
  if (header_.patch_grid_size() == 2) {
    render::MatrixFigure figure;
    figure.caption = std::move(caption);
    figure.rows = header_.patch_grid(0);
    figure.columns = header_.patch_grid(1);
    figure.values = attribution_;
    png = render::RenderGridPng(figure);
  } else {
    render::AttributionFigure figure;
    figure.caption = std::move(caption);
    for (const v1::Token& token : header_.tokens()) {
      figure.tokens.push_back(token.piece_bytes().empty()
                                  ? absl::StrCat(token.id())
                                  : token.piece_bytes());
    }
    figure.values = attribution_;
    figure.position = static_cast<size_t>(std::max(0, header_.position()));
    png = render::RenderAttributionPng(figure);
  }
  if (!png.ok()) {
    return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                     absl::StrCat("drawing: ", png.status().message()));
  }
  google::api::HttpBody body;
  body.set_content_type("image/png");
  body.set_data(*std::move(png));
  return body;
}

}  // namespace limpid
