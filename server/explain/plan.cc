// SPDX-License-Identifier: Apache-2.0
#include "server/explain/plan.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace limpid {
namespace {

// Bytes of text per token beyond which a text can't fit the limit whatever the
// tokenizer does with it; spares the tokenizer hopeless work.
constexpr int64_t kMostBytesPerToken = 256;

absl::Status Precondition(absl::string_view reason,
                          const std::string& message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

void CheckIndices(const char* field, const std::vector<int64_t>& indices,
                  int64_t limit, Violations& violations) {
  std::set<int64_t> seen;
  for (size_t i = 0; i < indices.size(); ++i) {
    const std::string path = absl::StrCat(field, "[", i, "]");
    if (indices[i] < 0 || indices[i] >= limit) {
      violations.Add(path, absl::StrCat("is ", indices[i],
                                        ", must be from 0 to ", limit - 1));
    } else if (!seen.insert(indices[i]).second) {
      violations.Add(path, absl::StrCat("repeats ", indices[i]));
    }
  }
}

// Every layer that is returned must have the channels: layers can differ.
void CheckChannels(const AttentionRequest& attention, const ModelInfo& info,
                   Violations& violations) {
  int64_t fewest = info.num_channels;
  for (int64_t layer = 0; layer < info.num_layers; ++layer) {
    const auto& layers = attention.layers;
    if (layers.empty() ||
        std::find(layers.begin(), layers.end(), layer) != layers.end()) {
      fewest = std::min(fewest, info.layer_channels[layer]);
    }
  }
  CheckIndices("attention.channels", attention.channels, fewest, violations);
}

void CheckLength(const char* field, int64_t length, int64_t limit,
                 Violations& violations) {
  if (length > limit) {
    violations.Add(
        field, absl::StrCat("has ", length, " tokens, the limit is ", limit));
  }
}

// What the network reads: token ids, or pixels.
struct ReadResult {
  std::vector<TokenSpan> tokens;
  std::vector<float> pixels;
  int64_t length = 0;  // positions
};

// Adds the violations of a status that has some; otherwise returns it.
absl::Status MoveViolations(const absl::Status& status,
                            Violations& violations) {
  const ErrorDetails details = GetErrorDetails(status);
  if (details.violations.empty()) return status;
  for (const FieldViolation& violation : details.violations) {
    violations.Add(violation.field, violation.description);
  }
  return absl::OkStatus();
}

absl::Status ReadText(const std::string& text, const Servable& model,
                      int64_t max_tokens, Violations& violations,
                      ReadResult& out) {
  if (!model.tokenizer()) {
    return Precondition("TOKENIZER_MISSING",
                        absl::StrCat("model ", model.info().name,
                                     " has no tokenizer; send token ids"));
  }
  const int64_t bytes = static_cast<int64_t>(text.size());
  if (bytes == 0) {
    violations.Add("input.text", "is empty, must have at least 1 byte");
    return absl::OkStatus();
  }
  if (bytes > max_tokens * kMostBytesPerToken) {
    violations.Add("input.text",
                   absl::StrCat("has ", bytes, " bytes, too long for ",
                                max_tokens, " tokens"));
    return absl::OkStatus();
  }
  auto encoded = model.tokenizer()->Encode(text);
  if (!encoded.ok()) return MoveViolations(encoded.status(), violations);
  out.tokens = *std::move(encoded);
  CheckLength("input.text", out.tokens.size(), max_tokens, violations);
  return absl::OkStatus();
}

void ReadTokens(const std::vector<int64_t>& ids, const ModelInfo& info,
                int64_t max_tokens, Violations& violations, ReadResult& out) {
  if (ids.empty()) {
    violations.Add("input.tokens.ids", "is empty, must have at least 1 id");
  }
  CheckLength("input.tokens.ids", ids.size(), max_tokens, violations);
  const int64_t vocabulary = info.vocabulary_size;
  constexpr int kShown = 20;
  int wrong = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const int64_t id = ids[i];
    out.tokens.push_back({id, 0, 0});
    if (id >= 0 && id < vocabulary) continue;
    if (++wrong <= kShown) {
      violations.Add(absl::StrCat("input.tokens.ids[", i, "]"),
                     absl::StrCat("token id ", id, ", must be from 0 to ",
                                  vocabulary - 1));
    }
  }
  if (wrong > kShown) {
    violations.Add("input.tokens.ids",
                   absl::StrCat(wrong - kShown, " more are out of range"));
  }
}

// The input as the model reads it, or violations.
absl::StatusOr<ReadResult> ReadInput(const Input& input, const Servable& model,
                                     int64_t max_tokens,
                                     Violations& violations) {
  const ModelInfo& info = model.info();
  const bool has_words = std::holds_alternative<TextInput>(input) ||
                         std::holds_alternative<TokenInput>(input);
  if (has_words != (info.modality == Modality::kText)) {
    return Precondition("WRONG_MODALITY",
                        absl::StrCat("model ", info.name,
                                     has_words ? " reads pictures, not text"
                                               : " reads text, not pictures"));
  }
  ReadResult out;
  if (has_words) {
    if (const auto* text = std::get_if<TextInput>(&input)) {
      LIMPID_RETURN_IF_ERROR(
          ReadText(text->text, model, max_tokens, violations, out));
    } else {
      ReadTokens(std::get<TokenInput>(input).ids, info, max_tokens, violations,
                 out);
    }
    out.length = static_cast<int64_t>(out.tokens.size());
    return out;
  }
  out.length = info.grid_rows * info.grid_columns + 1;
  if (const auto* image = std::get_if<ImageInput>(&input)) {
    auto pixels = model.images()->Process(image->bytes);
    if (!pixels.ok()) {
      LIMPID_RETURN_IF_ERROR(MoveViolations(pixels.status(), violations));
      return out;
    }
    out.pixels = std::move(pixels->values);
    return out;
  }
  const PixelInput& given = std::get<PixelInput>(input);
  const std::vector<int64_t> shape = {3, info.image_height, info.image_width};
  if (given.shape != shape) {
    violations.Add(
        "input.pixels",
        absl::StrCat("has shape [", absl::StrJoin(given.shape, ", "),
                     "], the model reads [", absl::StrJoin(shape, ", "), "]"));
  }
  out.pixels = given.values;
  return out;
}

void CheckTarget(const Target& target, const ModelInfo& info,
                 Violations& violations) {
  const int64_t last = info.vocabulary_size - 1;
  const bool classes = info.modality == Modality::kImage;
  const auto check = [&](const char* field, int64_t id) {
    if (id < 0 || id > last) {
      violations.Add(field, absl::StrCat(classes ? "class id " : "token id ",
                                         id, ", must be from 0 to ", last));
    }
  };
  switch (target.kind) {
    case Target::Kind::kPredicted:
      break;
    case Target::Kind::kToken:
      if (classes) {
        violations.Add("points[0].target.token_id",
                       "is for models with tokens; this one has classes: use "
                       "class_id");
      } else {
        check("points[0].target.token_id", target.id);
      }
      break;
    case Target::Kind::kClass:
      if (classes) {
        check("points[0].target.class_id", target.id);
      } else {
        violations.Add("points[0].target.class_id",
                       "is for models with classes; this one has tokens: use "
                       "token_id");
      }
      break;
    case Target::Kind::kContrast:
      check("points[0].target.contrast.id", target.id);
      check("points[0].target.contrast.baseline_id", target.baseline_id);
      if (target.id == target.baseline_id) {
        violations.Add("points[0].target.contrast.baseline_id",
                       "must differ from contrast.id");
      }
      break;
  }
}

int64_t ResolvePosition(const Position& position, int64_t length,
                        const ModelInfo& info, Violations& violations) {
  switch (position.kind) {
    case Position::Kind::kIndex:
      // An input without tokens has a violation of its own.
      if (position.index < 0 || (length > 0 && position.index >= length)) {
        violations.Add("points[0].position.index",
                       absl::StrCat("is ", position.index,
                                    ", must be from 0 to ", length - 1));
      }
      return position.index;
    case Position::Kind::kClassToken:
      if (info.modality != Modality::kImage) {
        violations.Add("points[0].position.class_token",
                       "is for vision models; this one takes index or last");
        return length - 1;
      }
      return info.class_token;
    case Position::Kind::kDefault:
      return info.modality == Modality::kImage ? info.class_token : length - 1;
    case Position::Kind::kLast:
      break;
  }
  return length - 1;
}

std::string FormNames(const std::vector<AttentionForm>& forms) {
  std::vector<std::string> names;
  for (const AttentionForm form : forms) {
    names.emplace_back(FormName(form));
  }
  return absl::StrJoin(names, ", ");
}

// What the model as such does not offer, however well the request is written.
absl::Status CheckOffered(const MethodEntry& entry, AttentionForm form,
                          const ModelInfo& info) {
  const auto& architectures = entry.spec.architectures;
  if (!architectures.empty() &&
      std::find(architectures.begin(), architectures.end(),
                info.architecture) == architectures.end()) {
    return Precondition(
        "METHOD_NOT_SUPPORTED_BY_ARCHITECTURE",
        absl::StrCat("method ", entry.spec.name, " is not defined for ",
                     info.architecture, "; it is for ",
                     absl::StrJoin(architectures, ", ")));
  }
  if (std::find(info.forms.begin(), info.forms.end(), form) ==
      info.forms.end()) {
    return Precondition(
        "FORM_NOT_SUPPORTED_BY_ARCHITECTURE",
        absl::StrCat("attention.form ", std::string(FormName(form)),
                     " does not exist for ", info.architecture,
                     "; it has: ", FormNames(info.forms)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Plan>> ExplanationPlan::Make(
    const ExplainRequest& request, std::shared_ptr<const Servable> model,
    const EngineOptions& limits, double flops_per_second) {
  const ModelInfo& info = model->info();
  const AttentionRequest& attention = request.attention;
  Violations violations;
  auto input = ReadInput(request.input, *model, limits.max_tokens, violations);

  auto plan = std::shared_ptr<ExplanationPlan>(new ExplanationPlan);
  plan->request_ = request;
  // The text or picture is not needed any more and can be large.
  plan->request_.input = TextInput{};
  plan->entry_ =
      FindMethod(request.method.empty() ? "raw-attention" : request.method);
  if (plan->entry_) {
    CheckOptions(plan->entry_->spec, request.options, info,
                 input.ok() ? input->length : 0, violations);
  } else {
    std::vector<std::string> names;
    for (const MethodSpec& spec : ListedMethods()) names.push_back(spec.name);
    violations.Add(
        "method", absl::StrCat("\"", request.method, "\" is not known; known: ",
                               absl::StrJoin(names, ", ")));
  }
  if (input.ok()) {
    plan->position_ =
        ResolvePosition(request.position, input->length, info, violations);
  }
  CheckTarget(request.target, info, violations);
  CheckIndices("attention.layers", attention.layers, info.num_layers,
               violations);
  CheckChannels(attention, info, violations);
  if (!attention.channels.empty() &&
      attention.reduction != ChannelReduction::kAll) {
    violations.Add("attention.channels",
                   "needs attention.channel_reduction all");
  }
  plan->form_ = {attention.form, attention.include_skip.value_or(
                                     DefaultIncludeSkip(attention.form))};
  if (attention.form == AttentionForm::kUpstream && plan->form_.include_skip) {
    violations.Add("attention.include_skip",
                   "must be false for the form upstream, which has no skip");
  }
  LIMPID_RETURN_IF_ERROR(violations.ToStatus());
  LIMPID_RETURN_IF_ERROR(input.status());
  LIMPID_RETURN_IF_ERROR(CheckOffered(*plan->entry_, attention.form, info));

  plan->tokens_ = std::move(input->tokens);
  plan->pixels_ = std::move(input->pixels);
  plan->length_ = input->length;
  plan->model_ = std::move(model);
  plan->layers_ = attention.layers;
  if (plan->layers_.empty()) {
    plan->layers_.resize(info.num_layers);
    std::iota(plan->layers_.begin(), plan->layers_.end(), 0);
  }
  std::sort(plan->layers_.begin(), plan->layers_.end());
  plan->method_memory_bytes_ =
      std::min(limits.max_request_memory_bytes / 2, int64_t{2} << 30);
  plan->Price(flops_per_second);
  if (plan->cost_.peak_bytes > limits.max_request_memory_bytes) {
    return Precondition(
        "REQUEST_TOO_LARGE",
        absl::StrCat("the request needs ", plan->cost_.peak_bytes,
                     " bytes beside the weights, the limit is ",
                     limits.max_request_memory_bytes,
                     "; ask for fewer layers or channels, or a reduction"));
  }
  return plan;
}

ChannelReduction ExplanationPlan::returned_reduction() const {
  return request_.attention.reduction.value_or(ChannelReduction::kMeanAbs);
}

ChannelReduction ExplanationPlan::method_reduction() const {
  const auto asked = request_.attention.reduction;
  return asked && *asked != ChannelReduction::kAll ? *asked
                                                   : entry_->default_reduction;
}

int64_t ExplanationPlan::readout() const {
  const ModelInfo& info = model_->info();
  return info.modality == Modality::kImage ? info.class_token : position_;
}

RowRange ExplanationPlan::RowsOf(bool returned) const {
  if (returned && request_.attention.kind == AttentionKind::kMatrix) {
    return {0, length()};
  }
  AttentionNeed wanted = need();
  // Returned layers are visited in any case, for their residual.
  if (returned && wanted == AttentionNeed::kNothing) {
    wanted = AttentionNeed::kRow;
  }
  return RowsFor(wanted, positions(), model_->info().causal, length());
}

void ExplanationPlan::Price(double flops_per_second) {
  constexpr int64_t kFloat = sizeof(float);
  const ModelInfo& info = model_->info();
  const Network& network = model_->network();
  const AttentionRequest& attention = request_.attention;
  const int64_t count = length();
  const int64_t num_returned = static_cast<int64_t>(layers_.size());
  const bool per_channel = returned_reduction() == ChannelReduction::kAll;
  const int64_t channels =
      !per_channel ? 1
      : attention.channels.empty()
          ? info.num_channels
          : static_cast<int64_t>(attention.channels.size());
  const int64_t rows = attention.kind == AttentionKind::kMatrix ? count
                       : attention.kind == AttentionKind::kRow  ? 1
                                                                : 0;

  int64_t layer_bytes = channels * rows * count * kFloat;
  if (per_channel) layer_bytes += channels * rows * kFloat;
  if (request_.debug_tensors) {
    layer_bytes +=
        2 * channels * (per_channel ? 1 : info.num_channels) * count * kFloat;
  }
  int64_t bytes = num_returned * layer_bytes + count * kFloat +
                  count * static_cast<int64_t>(sizeof(int64_t));
  bytes += info.num_layers * count * kFloat;
  if (request_.logits) bytes += info.vocabulary_size * kFloat;
  if (request_.debug_tensors && entry_->spec.uses_target) {
    bytes += 2 * count * info.hidden_size * kFloat;
  }
  cost_.reply_bytes = bytes;

  // One layer's tensors are held as a tensor and as the message that leaves;
  // a sink that keeps them all says so itself.
  const int64_t reduced = 3 * count * count * kFloat;
  const MethodCost method =
      entry_->cost({network, request_.options, method_reduction(), count,
                    positions(), method_memory_bytes_});
  cost_.peak_bytes = network.ForwardBytes(1, count) +
                     network.VisitBytes(count) + 2 * layer_bytes + reduced +
                     method.bytes;

  double flops = network.ForwardFlops(count) + method.flops;
  const auto visit = [&](bool returned, int64_t layers) {
    const RowRange range = RowsOf(returned);
    if (range.size() > 0) {
      flops += layers * network.AttentionFlops(range.end, range.size());
    }
  };
  visit(true, num_returned);
  visit(false, info.num_layers - num_returned);
  cost_.flops = flops;
  cost_.compute_seconds = flops / flops_per_second;
}

}  // namespace limpid
