// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/text_curves.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/evaluate/metrics.h"
#include "client/evaluate/perturbation.h"

namespace limpid::evaluate {
namespace {

size_t Largest(const std::vector<float>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) -
                             values.begin());
}

// What the three protocols share.
class TextProtocol : public Protocol {
 public:
  explicit TextProtocol(const TextOptions& options) : options_(options) {}

  std::string description() const override {
    return absl::StrCat(num_items(), " sentences, replacement token ",
                        options_.replacement);
  }
  size_t num_items() const override { return options_.sentences.size(); }
  absl::StatusOr<v1::Input> input(size_t item) const override {
    v1::Input input;
    input.set_text(options_.sentences[item].text);
    return input;
  }
  // The predicted class.
  v1::Target target(size_t, const Reading& reading) const override {
    const auto logits = ClassLogits(reading.logits, options_.classes);
    if (!logits.ok()) return ClassTarget({}, 0);
    const size_t best = Largest(*logits);
    return ClassTarget(options_.classes, options_.classes.empty()
                                             ? static_cast<int64_t>(best)
                                             : options_.classes[best]);
  }

 protected:
  // Logits of the classes with only the first `kept` tokens of `order` in
  // place, or only those after the first `removed` ones.
  absl::StatusOr<std::vector<float>> AskKept(const Reading& reading,
                                             const std::vector<size_t>& order,
                                             size_t kept,
                                             const AskLogits& ask) const {
    return AskRange(reading, order, 0, kept, ask);
  }
  absl::StatusOr<std::vector<float>> AskRemoved(
      const Reading& reading, const std::vector<size_t>& order, size_t removed,
      const AskLogits& ask) const {
    return AskRange(reading, order, removed, order.size(), ask);
  }

  const TextOptions options_;

 private:
  absl::StatusOr<std::vector<float>> AskRange(const Reading& reading,
                                              const std::vector<size_t>& order,
                                              size_t begin, size_t end,
                                              const AskLogits& ask) const {
    std::vector<int64_t> ids(reading.tokens.size(), options_.replacement);
    for (size_t i = begin; i < end; ++i) {
      ids[order[i]] = reading.tokens[order[i]].id();
    }
    v1::Input input;
    input.mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
    const absl::StatusOr<std::vector<float>> logits = ask(input);
    if (!logits.ok()) return logits.status();
    return ClassLogits(*logits, options_.classes);
  }
};

class TextPerturbation : public TextProtocol {
 public:
  using TextProtocol::TextProtocol;
  std::string name() const override { return "perturbation"; }
  std::vector<Figure> figures() const override { return PerturbationFigures(); }
  std::vector<Curve> curves() const override { return PerturbationCurves(); }

  absl::StatusOr<std::vector<double>> Judge(
      size_t, const Reading& reading, std::span<const float> attribution,
      uint64_t seed, const AskLogits& ask) const override {
    const auto whole = ClassLogits(reading.logits, options_.classes);
    if (!whole.ok()) return whole.status();
    const size_t predicted = Largest(*whole);
    const std::vector<size_t> order = DescendingOrder(attribution, seed);
    return JudgePerturbation(order,
                             [&](const std::vector<size_t>& from,
                                 size_t removed) -> absl::StatusOr<bool> {
                               const auto logits =
                                   AskRemoved(reading, from, removed, ask);
                               if (!logits.ok()) return logits.status();
                               return Largest(*logits) == predicted;
                             });
  }
};

class Activation : public TextProtocol {
 public:
  using TextProtocol::TextProtocol;
  std::string name() const override { return "activation"; }
  std::vector<Figure> figures() const override {
    return {MeanFigure("auac", "AUAC", true, 0)};
  }
  std::vector<Curve> curves() const override {
    return {{"probability of the true class", "share of tokens revealed", 1,
             Tenths(0, 10)}};
  }
  v1::Target target(size_t item, const Reading&) const override {
    return ClassTarget(options_.classes, *options_.sentences[item].label);
  }

  absl::StatusOr<std::vector<double>> Judge(
      size_t item, const Reading& reading, std::span<const float> attribution,
      uint64_t seed, const AskLogits& ask) const override {
    const int64_t label = *options_.sentences[item].label;
    const auto found =
        std::find(options_.classes.begin(), options_.classes.end(), label);
    const auto index =
        options_.classes.empty()
            ? static_cast<size_t>(label)
            : static_cast<size_t>(found - options_.classes.begin());
    const std::vector<size_t> order = DescendingOrder(attribution, seed);
    std::vector<double> curve;
    for (int tenths = 0; tenths <= 10; ++tenths) {
      const auto logits =
          AskKept(reading, order, CountOfTenths(tenths, order.size()), ask);
      if (!logits.ok()) return logits.status();
      if (index >= logits->size()) {
        return DataError("a label is not in the model's vocabulary");
      }
      curve.push_back(Softmax(*logits)[index]);
    }
    std::vector<double> scores = {TrapezoidArea(Tenths(0, 10), curve)};
    scores.insert(scores.end(), curve.begin(), curve.end());
    return scores;
  }
};

class Pruning : public TextProtocol {
 public:
  using TextProtocol::TextProtocol;
  std::string name() const override { return "pruning"; }
  std::vector<Figure> figures() const override {
    return {MeanFigure("au_mse", "AU-MSE", false, 0)};
  }
  std::vector<Curve> curves() const override {
    return {{"squared change of the logits", "share of tokens replaced", 1,
             Tenths(0, 10)}};
  }

  absl::StatusOr<std::vector<double>> Judge(
      size_t, const Reading& reading, std::span<const float> attribution,
      uint64_t seed, const AskLogits& ask) const override {
    const auto whole = ClassLogits(reading.logits, options_.classes);
    if (!whole.ok()) return whole.status();
    std::vector<float> smallness(attribution.begin(), attribution.end());
    for (float& x : smallness) x = -std::abs(x);
    const std::vector<size_t> order = DescendingOrder(smallness, seed);
    std::vector<double> curve;
    for (int tenths = 0; tenths <= 10; ++tenths) {
      const auto logits =
          AskRemoved(reading, order, CountOfTenths(tenths, order.size()), ask);
      if (!logits.ok()) return logits.status();
      double sum = 0;
      for (size_t c = 0; c < logits->size(); ++c) {
        const double change = double{(*logits)[c]} - double{(*whole)[c]};
        sum += change * change;
      }
      curve.push_back(sum);
    }
    std::vector<double> scores = {TrapezoidArea(Tenths(0, 10), curve)};
    scores.insert(scores.end(), curve.begin(), curve.end());
    return scores;
  }
};

}  // namespace

absl::StatusOr<std::vector<float>> ClassLogits(
    const std::vector<float>& logits, const std::vector<int64_t>& classes) {
  if (classes.empty()) return logits;
  std::vector<float> chosen;
  for (const int64_t id : classes) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) {
      return DataError(absl::StrCat("class ", id,
                                    " is not in the model's vocabulary of ",
                                    logits.size()));
    }
    chosen.push_back(logits[static_cast<size_t>(id)]);
  }
  return chosen;
}

v1::Target ClassTarget(const std::vector<int64_t>& classes, int64_t chosen) {
  v1::Target target;
  if (classes.size() == 2) {
    target.mutable_contrast()->set_id(chosen);
    target.mutable_contrast()->set_baseline_id(
        classes[0] == chosen ? classes[1] : classes[0]);
  } else {
    target.set_token_id(chosen);
  }
  return target;
}

std::unique_ptr<Protocol> MakeTextPerturbation(const TextOptions& options) {
  return std::make_unique<TextPerturbation>(options);
}

absl::StatusOr<std::unique_ptr<Protocol>> MakeActivation(
    const TextOptions& options) {
  for (const Sentence& sentence : options.sentences) {
    const bool known =
        sentence.label && *sentence.label >= 0 &&
        (options.classes.empty() ||
         std::find(options.classes.begin(), options.classes.end(),
                   *sentence.label) != options.classes.end());
    if (!known) {
      return DataError(
          "activation needs a label among the classes for every "
          "sentence");
    }
  }
  return std::make_unique<Activation>(options);
}

std::unique_ptr<Protocol> MakePruning(const TextOptions& options) {
  return std::make_unique<Pruning>(options);
}

}  // namespace limpid::evaluate
