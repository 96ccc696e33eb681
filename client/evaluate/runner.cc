// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/runner.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/error_report.h"
#include "client/evaluate/parallel.h"
#include "client/evaluate/seeded_random.h"
#include "client/tensor_codec.h"

namespace limpid::evaluate {
namespace {

absl::StatusOr<std::vector<float>> Floats(const Explanation& explanation,
                                          const std::string& name) {
  const auto found = explanation.tensors.find(name);
  if (found == explanation.tensors.end()) {
    return ClientError(absl::StatusCode::kDataLoss, "TENSOR_DAMAGED",
                       absl::StrCat("the reply has no tensor ", name));
  }
  absl::StatusOr<std::vector<float>> values = UnpackFloats(found->second);
  if (!values.ok()) return values.status();
  for (float& x : *values) {
    if (!std::isfinite(x)) x = 0;
  }
  return values;
}

// The options that the method takes.
v1::MethodOptions FitOptions(const v1::MethodOptions& all,
                             const std::vector<v1::Method>& methods,
                             const std::string& name) {
  v1::MethodOptions fit = all;
  const auto method =
      std::find_if(methods.begin(), methods.end(),
                   [&](const v1::Method& m) { return m.name() == name; });
  const google::protobuf::Descriptor& type = *fit.descriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const auto takes = [&](const v1::MethodOptionSpec& option) {
      return option.name() == type.field(i)->name();
    };
    if (method == methods.end() ||
        std::none_of(method->options().begin(), method->options().end(),
                     takes)) {
      fit.GetReflection()->ClearField(&fit, type.field(i));
    }
  }
  return fit;
}

std::vector<std::vector<double>> ListOf(const ItemScores& scores) {
  std::vector<std::vector<double>> list;
  for (const auto& [item, values] : scores) list.push_back(values);
  return list;
}

// One run of RunProtocol.
class Run {
 public:
  Run(const Protocol& protocol, const v1::Model& model,
      const std::vector<v1::Method>& methods, const Explain& explain,
      const RunOptions& options, ScoreStore& store,
      const OnProgress& on_progress)
      : protocol_(protocol),
        model_(model),
        methods_(methods),
        explain_(explain),
        options_(options),
        store_(store),
        on_progress_(on_progress),
        readings_(protocol.num_items()) {}

  absl::StatusOr<Results> Do();

 private:
  // Items of a row that the store does not hold.
  struct Task {
    size_t row;
    size_t item;
  };

  v1::ExplainRequest BaseRequest(v1::Input input) const;
  absl::Status Read(size_t item);
  absl::StatusOr<std::vector<float>> Attribution(const Row& row, size_t item);
  absl::StatusOr<std::vector<float>> AskAttribution(const Row& row,
                                                    size_t item) const;
  absl::StatusOr<std::vector<double>> Score(const Row& row, size_t item);
  // Fills `scores` for the rows from `first` on.
  absl::Status Fill(const std::vector<Row>& rows, size_t first,
                    std::vector<ItemScores>& scores);
  RowResult Summarize(const Row& row, const ItemScores& scores) const;
  std::vector<FormDifference> CompareForms(
      const std::vector<Row>& rows,
      const std::vector<ItemScores>& scores) const;

  const Protocol& protocol_;
  const v1::Model& model_;
  const std::vector<v1::Method>& methods_;
  const Explain& explain_;
  const RunOptions& options_;
  ScoreStore& store_;
  const OnProgress& on_progress_;
  std::vector<Reading> readings_;  // by item
  // What the server has answered, by the row's method and form and by item: the
  // control needs one of them again.
  std::mutex mutex_;
  std::map<std::tuple<std::string, int, size_t>, std::vector<float>>
      attributions_;  // under mutex_
  int64_t done_ = 0, total_ = 0;
};

// The cheapest request that answers with logits and nothing else.
v1::ExplainRequest Run::BaseRequest(v1::Input input) const {
  v1::ExplainRequest request;
  request.set_model(model_.name());
  *request.mutable_input() = std::move(input);
  request.set_method("raw-attention");
  request.mutable_attention()->set_kind(v1::ATTENTION_KIND_NONE);
  request.mutable_output()->set_logits(true);
  return request;
}

absl::Status Run::Read(size_t item) {
  absl::StatusOr<v1::Input> input = protocol_.input(item);
  if (!input.ok()) return input.status();
  const absl::StatusOr<Explanation> reply =
      explain_(BaseRequest(*std::move(input)));
  if (!reply.ok()) return reply.status();
  absl::StatusOr<std::vector<float>> logits = Floats(*reply, "logits");
  if (!logits.ok()) return logits.status();
  Reading& reading = readings_[item];
  reading.tokens.assign(reply->header.tokens().begin(),
                        reply->header.tokens().end());
  if (reply->header.patch_grid_size() == 2) {
    reading.grid_rows = reply->header.patch_grid(0);
    reading.grid_columns = reply->header.patch_grid(1);
  }
  reading.logits = *std::move(logits);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> Run::AskAttribution(const Row& row,
                                                       size_t item) const {
  const Reading& reading = readings_[item];
  absl::StatusOr<v1::Input> input = protocol_.input(item);
  if (!input.ok()) return input.status();
  v1::ExplainRequest request = BaseRequest(*std::move(input));
  request.mutable_output()->clear_logits();
  request.set_method(row.method);
  if (row.form != v1::ATTENTION_FORM_UNSPECIFIED) {
    request.mutable_attention()->set_form(row.form);
  }
  *request.mutable_options() =
      FitOptions(options_.method_options, methods_, row.method);
  *request.add_points()->mutable_target() = protocol_.target(item, reading);
  const absl::StatusOr<Explanation> reply = explain_(request);
  if (!reply.ok()) return reply.status();
  absl::StatusOr<std::vector<float>> values = Floats(*reply, "attribution");
  if (values.ok() && values->size() != reading.size()) {
    return ClientError(absl::StatusCode::kDataLoss, "TENSOR_DAMAGED",
                       absl::StrCat("attribution has ", values->size(),
                                    " values, not ", reading.size()));
  }
  return values;
}

absl::StatusOr<std::vector<float>> Run::Attribution(const Row& row,
                                                    size_t item) {
  SeededRandom random(
      MixSeed(options_.seed, {"row", row.key, absl::StrCat(item)}));
  if (row.kind == Row::Kind::kRandom) {
    std::vector<float> values(readings_[item].size());
    for (float& x : values) x = static_cast<float>(2 * random.Uniform() - 1);
    return values;
  }
  const std::tuple key(row.method, int{row.form}, item);
  std::vector<float> values;
  {
    const std::lock_guard lock(mutex_);
    if (const auto kept = attributions_.find(key);
        kept != attributions_.end()) {
      values = kept->second;
    }
  }
  if (values.empty()) {
    absl::StatusOr<std::vector<float>> asked = AskAttribution(row, item);
    if (!asked.ok()) return asked.status();
    values = *std::move(asked);
    const std::lock_guard lock(mutex_);
    attributions_[key] = values;
  }
  if (row.kind == Row::Kind::kShuffled) random.Shuffle(values);
  return values;
}

absl::StatusOr<std::vector<double>> Run::Score(const Row& row, size_t item) {
  const absl::StatusOr<std::vector<float>> attribution = Attribution(row, item);
  if (!attribution.ok()) return attribution.status();
  const AskLogits ask =
      [this](const v1::Input& input) -> absl::StatusOr<std::vector<float>> {
    const absl::StatusOr<Explanation> reply = explain_(BaseRequest(input));
    if (!reply.ok()) return reply.status();
    return Floats(*reply, "logits");
  };
  return protocol_.Judge(
      item, readings_[item], *attribution,
      MixSeed(options_.seed, {"ties", row.key, absl::StrCat(item)}), ask);
}

absl::Status Run::Fill(const std::vector<Row>& rows, size_t first,
                       std::vector<ItemScores>& scores) {
  std::vector<Task> tasks;
  scores.resize(rows.size());
  for (size_t r = first; r < rows.size(); ++r) {
    absl::StatusOr<ItemScores> kept = store_.Load(rows[r]);
    if (!kept.ok()) return kept.status();
    scores[r] = *std::move(kept);
    for (size_t item = 0; item < protocol_.num_items(); ++item) {
      if (!scores[r].contains(item)) tasks.push_back({r, item});
    }
  }
  std::vector<std::vector<double>> made(tasks.size());
  const int64_t before =
      done_ + static_cast<int64_t>(
                  (rows.size() - first) * protocol_.num_items() - tasks.size());
  const absl::Status status = ForEachInParallel(
      tasks.size(), options_.parallel,
      [&](size_t i) {
        const auto [row, item] = tasks[i];
        absl::StatusOr<std::vector<double>> result = Score(rows[row], item);
        if (!result.ok()) return result.status();
        made[i] = *std::move(result);
        return store_.Add(rows[row], item, made[i]);
      },
      [&](size_t done) {
        done_ = before + static_cast<int64_t>(done);
        on_progress_(done_, total_);
      });
  for (size_t i = 0; status.ok() && i < tasks.size(); ++i) {
    scores[tasks[i].row][tasks[i].item] = std::move(made[i]);
  }
  return status;
}

RowResult Run::Summarize(const Row& row, const ItemScores& scores) const {
  const std::vector<std::vector<double>> list = ListOf(scores);
  const std::vector<Figure> figures = protocol_.figures();
  RowResult result{row,
                   Bootstrap(list, figures, options_.resamples,
                             MixSeed(options_.seed, {"bootstrap"})),
                   {}};
  const std::vector<double> sums = SumScores(list);
  for (const Curve& curve : protocol_.curves()) {
    std::vector<double> y;
    for (size_t i = 0; i < curve.x.size(); ++i) {
      y.push_back(curve.factor * sums[curve.first_score + i] /
                  static_cast<double>(list.size()));
    }
    result.curves.push_back(std::move(y));
  }
  return result;
}

std::vector<FormDifference> Run::CompareForms(
    const std::vector<Row>& rows, const std::vector<ItemScores>& scores) const {
  std::vector<FormDifference> differences;
  for (size_t state = 0; state < rows.size(); ++state) {
    for (size_t full = 0; full < rows.size(); ++full) {
      if (rows[state].method != rows[full].method ||
          rows[state].form != v1::ATTENTION_FORM_STATE ||
          rows[full].form != v1::ATTENTION_FORM_FULL) {
        continue;
      }
      differences.push_back(
          {rows[full].method,
           BootstrapDifference(ListOf(scores[full]), ListOf(scores[state]),
                               protocol_.figures(), options_.resamples,
                               MixSeed(options_.seed, {"bootstrap"}))});
    }
  }
  return differences;
}

absl::StatusOr<Results> Run::Do() {
  RowPlan plan = PlanRows(model_);
  if (plan.rows.size() < 2) {
    return DataError(
        absl::StrCat(model_.name(), " offers none of the methods"));
  }
  const size_t items = protocol_.num_items();
  total_ = static_cast<int64_t>((plan.rows.size() + 2) * items);
  const absl::Status read = ForEachInParallel(
      items, options_.parallel, [this](size_t item) { return Read(item); },
      [this](size_t done) {
        done_ = static_cast<int64_t>(done);
        on_progress_(done_, total_);
      });
  if (!read.ok()) return read;
  std::vector<ItemScores> scores;
  if (absl::Status status = Fill(plan.rows, 0, scores); !status.ok()) {
    return status;
  }
  Results results;
  results.skipped = std::move(plan.skipped);
  for (size_t r = 0; r < plan.rows.size(); ++r) {
    results.rows.push_back(Summarize(plan.rows[r], scores[r]));
  }
  results.differences = CompareForms(plan.rows, scores);
  const bool higher = protocol_.figures()[0].higher_is_better;
  results.best = 1;
  for (size_t r = 2; r < results.rows.size(); ++r) {
    const double best = results.rows[results.best].figures[0].value;
    const double value = results.rows[r].figures[0].value;
    if (higher ? value > best : value < best) results.best = r;
  }
  plan.rows.push_back(ShuffledRow(plan.rows[results.best]));
  if (absl::Status status = Fill(plan.rows, plan.rows.size() - 1, scores);
      !status.ok()) {
    return status;
  }
  results.rows.push_back(Summarize(plan.rows.back(), scores.back()));
  return results;
}

}  // namespace

absl::StatusOr<Results> RunProtocol(const Protocol& protocol,
                                    const v1::Model& model,
                                    const std::vector<v1::Method>& methods,
                                    const Explain& explain,
                                    const RunOptions& options,
                                    ScoreStore& store,
                                    const OnProgress& on_progress) {
  return Run(protocol, model, methods, explain, options, store, on_progress)
      .Do();
}

absl::Status DataError(const std::string& message) {
  return ClientError(absl::StatusCode::kInvalidArgument, "DATA_UNSUITABLE",
                     message);
}

}  // namespace limpid::evaluate
