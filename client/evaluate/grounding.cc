// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/grounding.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "client/evaluate/metrics.h"
#include "client/evaluate/seeded_random.h"

namespace limpid::evaluate {
namespace {

class Grounding : public Protocol {
 public:
  explicit Grounding(const GroundingOptions& options) : options_(options) {
    for (size_t i = 0; i < options.items; ++i) {
      sequences_.push_back(MakeRecallSequence(options, i));
    }
  }

  std::string name() const override { return "grounding"; }
  std::string description() const override {
    return absl::StrCat(num_items(), " generated sequences of ",
                        options_.least_pairs, " to ", options_.most_pairs,
                        " pairs");
  }
  std::vector<Figure> figures() const override {
    return {MeanFigure("precision_at_1", "precision@1", true, 0),
            MeanFigure("mean_rank", "mean rank", false, 1, 1, 2)};
  }
  size_t num_items() const override { return sequences_.size(); }
  absl::StatusOr<v1::Input> input(size_t item) const override {
    v1::Input input;
    input.set_text(sequences_[item].text);
    return input;
  }
  v1::Target target(size_t, const Reading&) const override {
    v1::Target target;
    target.mutable_predicted();
    return target;
  }

  absl::StatusOr<std::vector<double>> Judge(size_t item, const Reading& reading,
                                            std::span<const float> attribution,
                                            uint64_t,
                                            const AskLogits&) const override {
    const RecallSequence& sequence = sequences_[item];
    if (reading.tokens.size() != sequence.text.size()) {
      return DataError("grounding needs a model with one token per character");
    }
    std::vector<double> size(attribution.begin(), attribution.end() - 1);
    for (double& x : size) x = std::abs(x);
    const size_t wanted[] = {sequence.key_at, sequence.key_at + 1};
    std::vector<uint8_t> right(size.size(), 0);
    for (const size_t index : wanted) right[index] = 1;
    return std::vector<double>{PrecisionAtK(size, right, 1),
                               BestRank(size, wanted)};
  }

 private:
  const GroundingOptions options_;
  std::vector<RecallSequence> sequences_;
};

}  // namespace

RecallSequence MakeRecallSequence(const GroundingOptions& options,
                                  size_t index) {
  SeededRandom random(
      MixSeed(options.seed, {"grounding", absl::StrCat(index)}));
  std::vector<char> keys, values;
  for (char key = 'a'; key <= 'z'; ++key) keys.push_back(key);
  for (char value = '0'; value <= '9'; ++value) values.push_back(value);
  random.Shuffle(keys);
  random.Shuffle(values);
  const size_t pairs = static_cast<size_t>(options.least_pairs) +
                       random.Below(static_cast<size_t>(
                           options.most_pairs - options.least_pairs + 1));
  RecallSequence sequence;
  for (size_t i = 0; i < pairs; ++i) {
    sequence.text += keys[i];
    sequence.text += values[i];
  }
  const size_t queried = random.Below(pairs);
  sequence.text += keys[queried];
  sequence.key_at = 2 * queried;
  return sequence;
}

std::unique_ptr<Protocol> MakeGrounding(const GroundingOptions& options) {
  return std::make_unique<Grounding>(options);
}

}  // namespace limpid::evaluate
