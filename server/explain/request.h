// SPDX-License-Identifier: Apache-2.0
//
// A request for an explanation as plain data: what the RPC layer makes of a
// message and the engine understands. No Torch, no Protobuf.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "server/attribution/curves.h"
#include "server/attribution/options.h"
#include "server/models/form.h"
#include "server/models/model.h"
#include "server/reduce/channel_reduction.h"

namespace limpid {

// Kinds of input.
struct TextInput {
  std::string text;  // UTF-8, verbatim
};
struct TokenInput {
  std::vector<int64_t> ids;
};
struct ImageInput {
  std::string bytes;  // PNG or JPEG
};
struct PixelInput {
  std::vector<int64_t> shape;  // [3, H, W]
  std::vector<float> values;
};
using Input = std::variant<TextInput, TokenInput, ImageInput, PixelInput>;

// Where. kDefault: the last token, or a vision model's class token.
struct Position {
  enum class Kind { kDefault, kIndex, kLast, kClassToken };
  Kind kind = Kind::kDefault;
  int64_t index = 0;
};

// What. kPredicted: the largest logit at the position; kNext: that of the token
// that follows in the input.
struct Target {
  enum class Kind { kPredicted, kToken, kClass, kContrast, kNext };
  Kind kind = Kind::kPredicted;
  int64_t id = 0;
  int64_t baseline_id = 0;  // kContrast
};

// Where and what.
struct Point {
  Position position;
  Target target;
};

enum class AttentionKind { kNone, kRow, kMatrix };

// Which attention is returned, and which one attention methods look at.
struct AttentionRequest {
  AttentionKind kind = AttentionKind::kRow;
  // Empty: mean |alpha|, and for the method its own default.
  std::optional<ChannelReduction> reduction;
  AttentionForm form = AttentionForm::kFull;
  std::optional<bool> include_skip;
  std::vector<int64_t> layers;    // empty: all
  std::vector<int64_t> channels;  // kAll only; empty: all
  int64_t downsample = 1;         // entries per side of an averaged block
  std::optional<int64_t> top_k;   // largest entries of a row that are kept
  // One matrix per head: that of the form state, without reduction.
  bool head_form = false;
};

// How many matrices of a layer are returned at most.
inline int64_t NumMatrices(const AttentionRequest& attention,
                           const ModelInfo& info) {
  if (attention.head_form && !info.layer_heads.empty()) {
    return *std::max_element(info.layer_heads.begin(), info.layer_heads.end());
  }
  if (attention.reduction != ChannelReduction::kAll) return 1;
  return attention.channels.empty()
             ? info.num_channels
             : static_cast<int64_t>(attention.channels.size());
}

// Tokens [begin, end) of a text.
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;
};
// Patches of a picture: rows and columns of the grid, [begin, end).
struct PatchRegion {
  TokenRange rows;
  TokenRange columns;
};

// Units over which attributions are summed.
struct AggregationRequest {
  enum class Unit { kToken, kWord, kSpan, kRegion };
  Unit unit = Unit::kToken;
  std::vector<TokenRange> spans;     // kSpan
  std::vector<PatchRegion> regions;  // kRegion
};

// A request for an explanation. Field names in errors are those of
// limpid.v1.ExplainRequest.
struct ExplainRequest {
  Input input;
  std::string method;  // empty: "raw-attention"
  MethodOptions options;
  // One or more.
  std::vector<Point> points = {Point()};
  AttentionRequest attention;
  std::optional<FaithfulnessRequest> faithfulness;
  AggregationRequest aggregation;
  Precision precision = Precision::kFloat32;
  bool logits = false;
  bool debug_tensors = false;
  int64_t top_k = 5;
};

}  // namespace limpid
