// SPDX-License-Identifier: Apache-2.0
//
// The shapes of a reply: one message, a stream, a picture.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "google/api/httpbody.pb.h"
#include "limpid/v1/explanation.pb.h"
#include "server/rpc/explain_flow.h"
#include "server/rpc/stream_call.h"

namespace limpid {

// Collects everything in one message.
class UnaryWriter final : public ReplyWriter {
 public:
  absl::Status Header(v1::ExplanationHeader header) override;
  absl::Status Progress(const v1::Progress& progress) override;
  absl::Status Tensor(v1::Tensor tensor) override;
  absl::Status Summary(v1::ExplanationSummary summary) override;
  bool Restart() override;

  const v1::ExplainResponse& response() const& { return response_; }
  v1::ExplainResponse&& response() && { return std::move(response_); }

 private:
  v1::ExplainResponse response_;
};

// Sends every part as it comes, tensors in chunks.
class StreamWriter final : public ReplyWriter {
 public:
  explicit StreamWriter(StreamCall& stream) : stream_(stream) {}
  absl::Status Header(v1::ExplanationHeader header) override;
  absl::Status Progress(const v1::Progress& progress) override;
  absl::Status Tensor(v1::Tensor tensor) override;
  absl::Status Summary(v1::ExplanationSummary summary) override;

 private:
  StreamCall& stream_;
};

// Draws the attribution.
class HeatmapWriter final : public ReplyWriter {
 public:
  absl::Status Header(v1::ExplanationHeader header) override;
  absl::Status Progress(const v1::Progress& progress) override;
  absl::Status Tensor(v1::Tensor tensor) override;
  absl::Status Summary(v1::ExplanationSummary summary) override;
  bool Restart() override;

  // The picture; INTERNAL if there is no attribution.
  absl::StatusOr<google::api::HttpBody> Draw() const;

 private:
  v1::ExplanationHeader header_;
  std::vector<float> attribution_;
  v1::ExplanationSummary summary_;
};

}  // namespace limpid
