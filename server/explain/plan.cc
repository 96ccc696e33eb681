// SPDX-License-Identifier: Apache-2.0
#include "server/explain/plan.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/attribution/faithfulness.h"
#include "server/explain/read_input.h"
#include "server/explain/units.h"

namespace limpid {
namespace {

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

std::string FormNames(const std::vector<AttentionForm>& forms) {
  std::vector<std::string> names;
  for (const AttentionForm form : forms) {
    names.emplace_back(FormName(form));
  }
  return absl::StrJoin(names, ", ");
}

// The matrix of a head is the recurrence's alone, and nothing else can be asked
// of it.
void CheckHeadForm(const AttentionRequest& attention, Violations& violations) {
  if (!attention.head_form) return;
  const auto wrong = [&](const char* field, const char* what) {
    violations.Add(field,
                   absl::StrCat("must be ", what, " with attention.head_form"));
  };
  if (attention.form != AttentionForm::kState) {
    wrong("attention.form", "state or unset");
  }
  if (attention.include_skip.value_or(false)) {
    wrong("attention.include_skip", "false or unset");
  }
  if (attention.reduction.value_or(ChannelReduction::kAll) !=
      ChannelReduction::kAll) {
    wrong("attention.channel_reduction", "all or unset");
  }
  if (!attention.channels.empty() &&
      attention.reduction == ChannelReduction::kAll) {
    wrong("attention.channels", "empty");
  }
}

absl::Status CheckHeads(const std::vector<int64_t>& layers,
                        const ModelInfo& info) {
  std::vector<int64_t> without;
  for (const int64_t layer : layers) {
    if (info.layer_heads[layer] == 0) without.push_back(layer);
  }
  if (without.empty()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      "FORM_NOT_SUPPORTED_BY_ARCHITECTURE",
      absl::StrCat("attention.head_form: these layers of ", info.architecture,
                   " have no heads: ", absl::StrJoin(without, ", ")));
}

// What the model as such does not offer, however well the request is written.
absl::Status CheckOffered(const MethodEntry& entry, AttentionForm form,
                          const ModelInfo& info) {
  const auto& architectures = entry.spec.architectures;
  if (!architectures.empty() &&
      std::find(architectures.begin(), architectures.end(),
                info.architecture) == architectures.end()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        "METHOD_NOT_SUPPORTED_BY_ARCHITECTURE",
        absl::StrCat("method ", entry.spec.name, " is not defined for ",
                     info.architecture, "; it is for ",
                     absl::StrJoin(architectures, ", ")));
  }
  if (std::find(info.forms.begin(), info.forms.end(), form) ==
      info.forms.end()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
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
  ReadResult read = input.ok() ? *std::move(input) : ReadResult();

  auto plan = std::shared_ptr<ExplanationPlan>(new ExplanationPlan);
  plan->request_ = request;
  // The text or picture is not needed any more and can be large.
  plan->request_.input = TextInput{};
  plan->entry_ =
      FindMethod(request.method.empty() ? "raw-attention" : request.method);
  if (plan->entry_) {
    CheckOptions(plan->entry_->spec, request.options, info, read.length,
                 violations);
  } else {
    std::vector<std::string> names;
    for (const MethodSpec& spec : ListedMethods()) names.push_back(spec.name);
    violations.Add(
        "method", absl::StrCat("\"", request.method, "\" is not known; known: ",
                               absl::StrJoin(names, ", ")));
  }
  plan->points_ = ReadPoints(request.points, read, info, violations);
  plan->units_ =
      ReadUnits(request.aggregation, request.input, read, info, violations);
  if (request.faithfulness) {
    CheckBaseline("faithfulness.replacement", request.faithfulness->replacement,
                  info, read.length, violations);
  }
  CheckIndices("attention.layers", attention.layers, info.num_layers,
               violations);
  CheckChannels(attention, info, violations);
  if (!attention.channels.empty() &&
      attention.reduction != ChannelReduction::kAll) {
    violations.Add("attention.channels",
                   "needs attention.channel_reduction all");
  }
  CheckHeadForm(attention, violations);
  plan->form_ = {attention.form, attention.include_skip.value_or(
                                     DefaultIncludeSkip(attention.form))};
  if (attention.form == AttentionForm::kUpstream && plan->form_.include_skip) {
    violations.Add("attention.include_skip",
                   "must be false for the form upstream, which has no skip");
  }
  LIMPID_RETURN_IF_ERROR(violations.ToStatus());
  LIMPID_RETURN_IF_ERROR(input.status());
  LIMPID_RETURN_IF_ERROR(CheckOffered(*plan->entry_, attention.form, info));

  plan->tokens_ = std::move(read.tokens);
  plan->pixels_ = std::move(read.pixels);
  plan->length_ = read.length;
  plan->model_ = std::move(model);
  for (size_t i = 0; request.faithfulness && i < plan->points_.size(); ++i) {
    if (plan->Removable(plan->points_[i].position).empty()) {
      violations.Add(absl::StrCat("points[", i, "]"),
                     "has special tokens only before it: nothing can be "
                     "deleted to measure faithfulness");
    }
  }
  LIMPID_RETURN_IF_ERROR(violations.ToStatus());
  plan->layers_ = attention.layers;
  if (plan->layers_.empty()) {
    plan->layers_.resize(info.num_layers);
    std::iota(plan->layers_.begin(), plan->layers_.end(), 0);
  }
  std::sort(plan->layers_.begin(), plan->layers_.end());
  if (attention.head_form) {
    LIMPID_RETURN_IF_ERROR(CheckHeads(plan->layers_, info));
  }
  plan->method_memory_bytes_ =
      std::min(limits.max_request_memory_bytes / 2, int64_t{2} << 30);
  plan->Price(flops_per_second);
  if (plan->cost_.peak_bytes > limits.max_request_memory_bytes) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "REQUEST_TOO_LARGE",
        absl::StrCat("the request needs ", plan->cost_.peak_bytes,
                     " bytes beside the weights, the limit is ",
                     limits.max_request_memory_bytes,
                     "; ask for fewer layers or channels, or a reduction"));
  }
  return plan;
}

ChannelReduction ExplanationPlan::returned_reduction() const {
  if (request_.attention.head_form) return ChannelReduction::kAll;
  return request_.attention.reduction.value_or(ChannelReduction::kMeanAbs);
}

std::vector<int64_t> ExplanationPlan::ReturnedChannels(int64_t layer) const {
  if (!request_.attention.head_form) return request_.attention.channels;
  const ModelInfo& info = model_->info();
  const int64_t size = info.layer_channels[layer] / info.layer_heads[layer];
  std::vector<int64_t> first;
  for (int64_t head = 0; head < info.layer_heads[layer]; ++head) {
    first.push_back(head * size);
  }
  return first;
}

ChannelReduction ExplanationPlan::method_reduction() const {
  const auto asked = request_.attention.reduction;
  return asked && *asked != ChannelReduction::kAll ? *asked
                                                   : entry_->default_reduction;
}

std::vector<int64_t> ExplanationPlan::positions() const {
  std::vector<int64_t> positions;
  for (const PlannedPoint& point : points_) positions.push_back(point.position);
  return positions;
}

std::vector<int64_t> ExplanationPlan::readouts() const {
  const ModelInfo& info = model_->info();
  if (info.modality != Modality::kImage) return positions();
  return std::vector<int64_t>(points_.size(), info.class_token);
}

std::vector<int64_t> ExplanationPlan::Removable(int64_t position) const {
  const ModelInfo& info = model_->info();
  const bool picture = info.modality == Modality::kImage;
  const Tokenizer* tokenizer = model_->tokenizer();
  const bool all =
      request_.options.special_tokens.value_or(true) || tokenizer == nullptr;
  std::vector<int64_t> removable;
  for (int64_t i = 0; i < (info.causal ? position + 1 : length_); ++i) {
    if (picture ? i != info.class_token
                : all || !tokenizer->IsSpecial(tokens_[i].id)) {
      removable.push_back(i);
    }
  }
  return removable;
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

bool ExplanationPlan::VisitsAs(const ExplanationPlan& other) const {
  const auto same_rows = [&](bool returned) {
    const RowRange own = RowsOf(returned), others = other.RowsOf(returned);
    return own.begin == others.begin && own.end == others.end;
  };
  return entry_ == other.entry_ && form_ == other.form_ &&
         length_ == other.length_ && layers_ == other.layers_ &&
         request_.attention.kind == other.request_.attention.kind &&
         returned_reduction() == other.returned_reduction() &&
         method_reduction() == other.method_reduction() && same_rows(true) &&
         same_rows(false);
}

int64_t ExplanationPlan::LayerBytes() const {
  const ModelInfo& info = model_->info();
  const AttentionRequest& attention = request_.attention;
  // Of values and outputs.
  const int64_t channels =
      attention.channels.empty()
          ? info.num_channels
          : static_cast<int64_t>(attention.channels.size());
  int64_t rows = 0;
  if (attention.kind == AttentionKind::kMatrix) rows = length();
  if (attention.kind == AttentionKind::kRow) {
    rows = static_cast<int64_t>(points_.size());
  }
  int64_t numbers = NumMatrices(attention, info) * rows * length();
  if (returned_reduction() == ChannelReduction::kAll) {
    numbers += channels * rows;
  }
  if (request_.debug_tensors) numbers += 2 * channels * length();
  return numbers * static_cast<int64_t>(sizeof(float));
}

void ExplanationPlan::Price(double flops_per_second) {
  constexpr int64_t kFloat = sizeof(float);
  const ModelInfo& info = model_->info();
  const Network& network = NetworkOf(model_->FirstCopy());
  const int64_t count = length();
  const auto num_points = static_cast<int64_t>(points_.size());
  const auto num_returned = static_cast<int64_t>(layers_.size());
  const int64_t layer_bytes = LayerBytes();

  int64_t of_point =
      count + info.num_layers * count + static_cast<int64_t>(units_.size());
  if (request_.logits) of_point += info.vocabulary_size;
  if (request_.debug_tensors && entry_->spec.uses_target) {
    of_point += 2 * count * info.hidden_size;
  }
  cost_.reply_bytes = num_returned * layer_bytes +
                      num_points * of_point * kFloat +
                      count * static_cast<int64_t>(sizeof(int64_t));

  const CostQuery query{network, request_.options, method_reduction(),
                        count,   positions(),      method_memory_bytes_};
  const MethodCost method = entry_->cost(query);
  MethodCost curves;
  if (request_.faithfulness) {
    curves = CostOfFaithfulness(query, *request_.faithfulness);
  }
  // One layer's tensors are held as a tensor and as the message that leaves;
  // a sink that keeps them all says so itself. Of single rows the ones between
  // are made too.
  const int64_t between = RowsOf(/*returned=*/true).size() *
                          (layer_bytes / std::max<int64_t>(1, num_points));
  const bool single_rows = request_.attention.kind == AttentionKind::kRow;
  const int64_t reduced = 3 * RowsOf(/*returned=*/true).size() * count * kFloat;
  cost_.peak_bytes = network.ForwardBytes(1, count) +
                     network.VisitBytes(count) + 2 * layer_bytes +
                     (single_rows ? between : 0) + reduced + method.bytes +
                     curves.bytes;

  double flops = network.ForwardFlops(count);
  const auto visit = [&](bool returned, int64_t layers) {
    const RowRange range = RowsOf(returned);
    if (range.size() > 0) {
      flops += layers * network.AttentionFlops(range.end, range.size());
    }
  };
  visit(true, num_returned);
  visit(false, info.num_layers - num_returned);
  // Passes of the method's own are made one request after the other.
  constexpr double kMostOwn = 4;
  const double own = method.flops + curves.flops;
  if (own <= kMostOwn * flops) batch_group_ = &network;
  flops += own;
  cost_.flops = flops;
  cost_.compute_seconds = flops / flops_per_second;
}

}  // namespace limpid
