// SPDX-License-Identifier: Apache-2.0
//
// Puts a reply together, whole or in parts, and refuses whatever does not fit:
// parts out of order, gaps, wrong checksums, missing or doubled tensors, a
// stream without its summary. Memory grows only with what has come.
//
// All errors are DATA_LOSS with reason TENSOR_DAMAGED or STREAM_DAMAGED.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/explanation.h"
#include "client/tensor_codec.h"

namespace limpid {

struct DecodeLimits {
  TensorLimits tensor;
  int64_t max_tensors = 100000;
  // Of all tensors of a reply together, packed.
  int64_t max_total_bytes = int64_t{1} << 38;
};

// A unary reply.
absl::StatusOr<Explanation> DecodeResponse(v1::ExplainResponse response,
                                           const DecodeLimits& limits = {});

// A streamed reply: Add every message in order, then Finish once. Not
// thread-safe. After an error, only destruction makes sense.
class StreamAssembler {
 public:
  // `observer` must outlive the assembler.
  explicit StreamAssembler(const StreamObserver& observer,
                           const DecodeLimits& limits = {});

  absl::Status Add(v1::StreamExplainResponse message);
  absl::StatusOr<Explanation> Finish();

 private:
  absl::Status AddHeader(v1::ExplanationHeader header);
  absl::Status BeginTensor(v1::TensorHeader header);
  absl::Status AddChunk(const v1::TensorChunk& chunk);
  absl::Status AddSummary(v1::ExplanationSummary summary);
  absl::Status CompleteTensor();

  const StreamObserver& observer_;
  const DecodeLimits limits_;
  Explanation explanation_;
  bool has_header_ = false, has_summary_ = false;
  // The tensor whose chunks are coming.
  bool in_tensor_ = false;
  v1::Tensor tensor_;
  uint32_t crc_ = 0;
  int64_t total_bytes_ = 0;
};

}  // namespace limpid
