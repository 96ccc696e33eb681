// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/lexicon.h"

#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/evaluate/metrics.h"

namespace limpid::evaluate {
namespace {

double RatingOf(const std::map<std::string, double>& ratings,
                const std::string& word) {
  const auto found = ratings.find(word);
  return found == ratings.end() ? 0 : found->second;
}

class Lexicon : public Protocol {
 public:
  Lexicon(TextOptions options, std::map<std::string, double> ratings)
      : options_(std::move(options)), ratings_(std::move(ratings)) {}

  std::string name() const override { return "lexicon"; }
  std::string description() const override {
    return absl::StrCat(num_items(), " sentences with a rated word");
  }
  std::vector<Figure> figures() const override {
    return {MeanFigure("spearman_magnitude", "Spearman of magnitudes", true, 0),
            MeanFigure("precision_at_1", "precision@1", true, 1),
            MeanFigure("precision_at_3", "precision@3", true, 2),
            MeanFigure("spearman_signed", "Spearman with signs", true, 3)};
  }
  size_t num_items() const override { return options_.sentences.size(); }
  absl::StatusOr<v1::Input> input(size_t item) const override {
    v1::Input input;
    input.set_text(options_.sentences[item].text);
    return input;
  }
  v1::Target target(size_t, const Reading&) const override {
    return ClassTarget(options_.classes, options_.classes[0]);
  }

  absl::StatusOr<std::vector<double>> Judge(size_t item, const Reading& reading,
                                            std::span<const float> attribution,
                                            uint64_t,
                                            const AskLogits&) const override {
    std::vector<double> values, sizes, ratings, strengths;
    std::vector<uint8_t> rated;
    for (const Word& word :
         SplitWords(options_.sentences[item].text, reading.tokens)) {
      double sum = 0;
      for (const size_t token : word.tokens) sum += attribution[token];
      const double rating = RatingOf(ratings_, word.text);
      values.push_back(sum);
      sizes.push_back(std::abs(sum));
      ratings.push_back(rating);
      strengths.push_back(std::abs(rating));
      rated.push_back(rating != 0);
    }
    return std::vector<double>{
        Spearman(sizes, strengths), PrecisionAtK(sizes, rated, 1),
        PrecisionAtK(sizes, rated, 3), Spearman(values, ratings)};
  }

 private:
  const TextOptions options_;
  const std::map<std::string, double> ratings_;
};

// A text as one token per byte: its words, before any model has seen it.
std::vector<Word> WordsOf(const std::string& text) {
  std::vector<v1::Token> bytes(text.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i].set_begin(static_cast<int32_t>(i));
  }
  return SplitWords(text, bytes);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Protocol>> MakeLexicon(
    const TextOptions& options, const std::map<std::string, double>& ratings) {
  if (options.classes.size() != 2) {
    return DataError(
        "lexicon needs two classes: the positive and the "
        "negative one");
  }
  TextOptions chosen = options;
  chosen.sentences.clear();
  for (const Sentence& sentence : options.sentences) {
    const std::vector<Word> words = WordsOf(sentence.text);
    bool rated = false;
    for (const Word& word : words) {
      rated = rated || RatingOf(ratings, word.text) != 0;
    }
    if (rated && words.size() > 1) chosen.sentences.push_back(sentence);
  }
  if (chosen.sentences.empty()) {
    return DataError("no sentence has a rated word beside others");
  }
  return std::make_unique<Lexicon>(std::move(chosen), ratings);
}

}  // namespace limpid::evaluate
