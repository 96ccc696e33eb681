// SPDX-License-Identifier: Apache-2.0
#include "client/cli/explain_view.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/flag_values.h"
#include "client/cli/layer_view.h"
#include "client/cli/pictures.h"
#include "client/cli/target_words.h"
#include "client/cli/text_layout.h"

namespace limpid::cli {
namespace {

// Of the attributions' magnitudes: a completeness error up to here is no
// matter.
constexpr double kFairShare = 0.05;

double Milliseconds(const google::protobuf::Duration& duration) {
  return 1e3 * static_cast<double>(duration.seconds()) +
         1e-6 * duration.nanos();
}

void PrintBar(Terminal& terminal, const render::ValueRange& range) {
  const std::string low = absl::StrFormat("%.3g", range.low);
  const std::string high = absl::StrFormat("%.3g", range.high);
  const int room = (terminal.columns > 0 ? terminal.columns : 80) - 2 -
                   static_cast<int>(low.size() + high.size());
  const int width = std::clamp(room, 8, 32);
  std::string bar;
  for (int i = 0; i < width; ++i) {
    bar += Colored(terminal.color,
                   render::ColorTable(range.scale)[i * 255 / (width - 1)], " ");
  }
  terminal.out << low << " " << bar << " " << high << "\n";
}

void PrintGrid(Terminal& terminal, const AttributionView& view,
               const render::ValueRange& range) {
  const bool wide =
      terminal.columns == 0 || 2 * view.grid_columns <= terminal.columns;
  for (size_t i = 0; i < view.values.size(); ++i) {
    terminal.out << Colored(terminal.color, range.Color(view.values[i]),
                            wide ? "  " : " ");
    if ((i + 1) % view.grid_columns == 0) terminal.out << "\n";
  }
}

// A line is ended before a token that would not fit, so that no token is broken
// but one that is longer than a line.
void PrintStrip(Terminal& terminal, const AttributionView& view,
                const render::ValueRange& range) {
  int used = 0;
  for (size_t i = 0; i < view.labels.size(); ++i) {
    const std::string text = Safe(view.labels[i]);
    const int width = DisplayWidth(text);
    if (terminal.columns > 0 && used > 0 && used + width > terminal.columns) {
      terminal.out << "\n";
      used = 0;
    }
    terminal.out << Colored(terminal.color, range.Color(view.values[i]),
                            Isolated(text));
    used += width;
    if (absl::EndsWith(view.labels[i], "\n")) {
      terminal.out << "\n";
      used = 0;
    }
  }
  terminal.out << "\n";
}

void PrintColored(Terminal& terminal, const AttributionView& view) {
  const render::ValueRange range = render::RangeOf(view.values);
  if (view.grid_rows > 0) {
    PrintGrid(terminal, view, range);
  } else {
    PrintStrip(terminal, view, range);
  }
  PrintBar(terminal, range);
}

// Pieces come last: their width on a screen is not known.
void PrintTable(Terminal& terminal, const Explanation& explanation,
                const AttributionView& view) {
  if (view.grid_rows > 0) {
    for (size_t i = 0; i < view.values.size(); ++i) {
      const bool last = (i + 1) % view.grid_columns == 0;
      terminal.out << absl::StreamFormat("%.6g", view.values[i])
                   << (last ? "\n" : "\t");
    }
    return;
  }
  const bool ids = view.labels.size() ==
                   static_cast<size_t>(explanation.header.tokens_size());
  terminal.out << absl::StreamFormat("%6s  %13s%s  %s\n", "index", "value",
                                     ids ? "        id" : "", "piece");
  for (size_t i = 0; i < view.labels.size(); ++i) {
    terminal.out << absl::StreamFormat("%6d  %13.6g", i, view.values[i]);
    if (ids) {
      terminal.out << absl::StreamFormat(
          "  %8d", explanation.header.tokens(static_cast<int>(i)).id());
    }
    terminal.out << "  " << Isolated(Safe(view.labels[i])) << "\n";
  }
}

// The name of a fact and the facts themselves, wrapped beside it.
constexpr int kNameColumns = 23;

void PrintFact(Terminal& terminal, const std::string& name,
               const std::string& value) {
  const int room =
      terminal.columns > 0 ? std::max(20, terminal.columns - kNameColumns) : 0;
  std::string first = FitToWidth(name, kNameColumns);
  for (const std::string& part : WrapText(value, room)) {
    terminal.out << first << part << "\n";
    first.assign(kNameColumns, ' ');
  }
}

void PrintFact(Terminal& terminal, const std::string& name, int64_t value) {
  PrintFact(terminal, name, absl::StrCat(value));
}

void PrintPrediction(
    Terminal& terminal,
    const google::protobuf::RepeatedPtrField<v1::Candidate>& predictions) {
  // The full line takes about 70 columns.
  const bool narrow = terminal.columns > 0 && terminal.columns < 72;
  bool first = true;
  for (const v1::Candidate& candidate : predictions) {
    std::string line =
        absl::StrFormat("%-22s %7.3f %%", first ? "prediction" : "",
                        100 * candidate.probability());
    if (!narrow)
      absl::StrAppendFormat(&line, "  logit %9.4f", candidate.logit());
    terminal.out << line << absl::StreamFormat("  id %6d  ", candidate.id())
                 << Isolated(Safe(candidate.piece())) << "\n";
    first = false;
  }
}

void PrintFaithfulness(Terminal& terminal,
                       const v1::Faithfulness& faithfulness) {
  const auto line = [&](const char* name, const char* better,
                        const v1::FaithfulnessCurve& curve) {
    PrintFact(terminal, name,
              absl::StrFormat("%.4f, in random order %.4f (%s is better)",
                              curve.area(), curve.random_area(), better));
  };
  line("deletion area", "lower", faithfulness.deletion());
  line("insertion area", "higher", faithfulness.insertion());
}

// Units with their sums; those without a text are named by what they cover.
void PrintUnits(
    Terminal& terminal,
    const google::protobuf::RepeatedPtrField<v1::UnitAttribution>& units) {
  bool first = true;
  for (const v1::UnitAttribution& unit : units) {
    std::string name = Safe(unit.text());
    if (unit.has_region()) {
      const v1::PatchRegion& region = unit.region();
      name = absl::StrFormat("rows %d-%d, columns %d-%d", region.row_begin(),
                             region.row_end() - 1, region.column_begin(),
                             region.column_end() - 1);
    } else if (name.empty()) {
      name = absl::StrFormat("tokens %d-%d", unit.tokens().begin(),
                             unit.tokens().end() - 1);
    }
    terminal.out << absl::StreamFormat("%-22s %13.6g  %s\n",
                                       first ? "sums" : "", unit.value(), name);
    first = false;
  }
}

void PrintAttribution(Terminal& terminal, const Explanation& explanation,
                      int point) {
  const absl::StatusOr<AttributionView> view =
      ViewAttribution(explanation, point);
  if (!view.ok()) return;
  if (terminal.color == ColorMode::kNone) {
    PrintTable(terminal, explanation, *view);
  } else {
    PrintColored(terminal, *view);
  }
  terminal.out << "\n";
}

// What is said of a point: a PointSummary, or the fields of the same names of a
// summary.
template <class Point>
void PrintPoint(Terminal& terminal, const Point& point) {
  PrintFact(terminal, "target",
            TargetWords(point.target(), point.predictions()));
  PrintPrediction(terminal, point.predictions());
  PrintUnits(terminal, point.units());
  if (point.has_constant()) {
    PrintFact(terminal, "constant", absl::StrFormat("%.6g", point.constant()));
  }
  if (point.has_completeness_error()) {
    PrintFact(
        terminal, "completeness error",
        CompletenessText(point.completeness_error(), point.attributions()));
  }
  if (point.has_faithfulness()) {
    PrintFaithfulness(terminal, point.faithfulness());
  }
}

void PrintQuality(Terminal& terminal, const v1::ExplanationSummary& summary) {
  if (summary.layers_size() > 0) {
    const auto worst = std::max_element(
        summary.layers().begin(), summary.layers().end(),
        [](const v1::LayerReport& a, const v1::LayerReport& b) {
          return a.reconstruction_error() < b.reconstruction_error();
        });
    PrintFact(terminal, "reconstruction error",
              absl::StrFormat("%.3g at most, in layer %d of %d layers",
                              worst->reconstruction_error(), worst->layer(),
                              summary.layers_size()));
  }
  if (summary.num_non_finite() > 0) {
    PrintFact(terminal, "values not finite", summary.num_non_finite());
  }
  if (summary.has_times()) {
    const v1::StageTimes& times = summary.times();
    PrintFact(terminal, "time",
              absl::StrFormat("queue %.1f ms, compute %.1f ms, serialize %.1f "
                              "ms",
                              Milliseconds(times.queue()),
                              Milliseconds(times.compute()),
                              Milliseconds(times.serialize())));
  }
}

std::string Shape(const v1::TensorHeader& header) {
  return absl::StrCat("[", absl::StrJoin(header.shape(), ", "), "]");
}

}  // namespace

void PrintHeaderPart(Terminal& terminal, const v1::ExplanationHeader& header) {
  PrintFact(terminal, "model",
            Safe(absl::StrCat(header.model(), " (", header.architecture(),
                              "), ", header.num_tokens(), " tokens")));
  PrintFact(terminal, "method", Safe(header.method()));
  PrintFact(terminal, "position", header.position());
  const std::string precision = PrecisionText(header.arithmetic());
  if (!precision.empty()) PrintFact(terminal, "precision", Safe(precision));
}

std::string PrecisionText(const v1::Arithmetic& arithmetic) {
  if (arithmetic.precision() <= v1::PRECISION_FLOAT32) return "";
  return absl::StrFormat("%s operands, logits off by %.2g",
                         arithmetic.operands(), arithmetic.logits_error());
}

void PrintTensorPart(Terminal& terminal, const v1::Tensor& tensor) {
  PrintFact(terminal, Safe(tensor.header().name()),
            absl::StrCat(Shape(tensor.header()), ", ",
                         tensor.header().num_bytes(), " bytes"));
  terminal.out << std::flush;
}

std::string CompletenessText(
    double error,
    const google::protobuf::RepeatedPtrField<v1::TokenAttribution>&
        attributions) {
  std::string text = absl::StrFormat("%.3g", error);
  double amount = 0;
  for (const v1::TokenAttribution& attribution : attributions) {
    amount += std::abs(attribution.value());
  }
  if (amount == 0 || std::abs(error) <= kFairShare * amount) return text;
  absl::StrAppendFormat(
      &text,
      ", %.0f %% of the values: they do not add up, try another baseline or "
      "method",
      100 * std::abs(error) / amount);
  return text;
}

void PrintSide(Terminal& terminal, const Explanation& explanation) {
  const v1::ExplanationSummary& summary = explanation.summary;
  const auto print = [&terminal](const std::string& text) {
    const int room = terminal.columns > 0 ? terminal.columns - 3 : 0;
    for (const std::string& part : WrapText(text, room)) {
      terminal.out << "   " << part << "\n";
    }
  };
  if (summary.predictions_size() > 0) {
    const v1::Candidate& best = summary.predictions(0);
    print(
        absl::StrFormat("%s %.1f %%, target %s",
                        best.piece().empty() ? absl::StrCat("#", best.id())
                                             : Safe(best.piece()),
                        100 * best.probability(),
                        TargetWords(summary.target(), summary.predictions())));
  }
  if (summary.has_faithfulness()) {
    print(absl::StrFormat("deletion area %.4f, insertion area %.4f",
                          summary.faithfulness().deletion().area(),
                          summary.faithfulness().insertion().area()));
  }
  std::string quality = absl::StrFormat("reconstruction error %.1e",
                                        summary.max_reconstruction_error());
  if (summary.has_completeness_error()) {
    absl::StrAppendFormat(&quality, ", completeness error %.1e",
                          summary.completeness_error());
  }
  if (summary.has_times()) {
    absl::StrAppendFormat(&quality, ", compute %.1f ms",
                          Milliseconds(summary.times().compute()));
  }
  print(quality);
}

void PrintExplanation(Terminal& terminal, const Explanation& explanation,
                      const ViewOptions& options) {
  const v1::ExplanationSummary& summary = explanation.summary;
  PrintAttribution(terminal, explanation, 0);
  if (options.layers) PrintLayers(terminal, explanation, options.matrices);
  PrintHeaderPart(terminal, explanation.header);
  PrintPoint(terminal, summary);
  for (int i = 1; i < summary.points_size(); ++i) {
    terminal.out << "\n";
    PrintAttribution(terminal, explanation, i);
    PrintFact(terminal, "position", summary.points(i).position());
    PrintPoint(terminal, summary.points(i));
  }
  if (summary.points_size() > 1) terminal.out << "\n";
  PrintQuality(terminal, summary);
  PrintFact(terminal, "device", Safe(explanation.header.device()));
}

void PrintCost(Terminal& terminal, const Explanation& explanation) {
  const v1::Cost& cost = explanation.summary.cost();
  PrintFact(terminal, "model", Safe(explanation.header.model()));
  PrintFact(terminal, "method", Safe(explanation.header.method()));
  PrintFact(terminal, "operations", absl::StrFormat("%.3g", cost.flops()));
  PrintFact(terminal, "peak bytes", cost.peak_bytes());
  PrintFact(terminal, "reply bytes", cost.reply_bytes());
  PrintFact(terminal, "compute seconds",
            absl::StrFormat("%.3g", cost.compute_seconds()));
  PrintFact(terminal, "fits a unary reply",
            cost.fits_unary_reply() ? "yes" : "no");
}

}  // namespace limpid::cli
