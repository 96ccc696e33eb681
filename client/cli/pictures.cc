// SPDX-License-Identifier: Apache-2.0
#include "client/cli/pictures.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/cli/target_words.h"
#include "client/tensor_codec.h"
#include "server/render/heatmap_png.h"
#include "server/render/overlay_png.h"
#include "server/render/svg.h"

namespace limpid::cli {
namespace {

std::vector<std::string> CaptionLines(const Explanation& explanation) {
  const v1::ExplanationSummary& summary = explanation.summary;
  std::vector<std::string> candidates;
  for (const v1::Candidate& candidate : summary.predictions()) {
    if (candidates.size() == 3) break;
    candidates.push_back(absl::StrFormat("%s %.1f%%",
                                         candidate.piece().empty()
                                             ? absl::StrCat("#", candidate.id())
                                             : candidate.piece(),
                                         100 * candidate.probability()));
  }
  std::vector<std::string> lines;
  if (!candidates.empty()) {
    lines.push_back(
        absl::StrCat("prediction: ", absl::StrJoin(candidates, ", ")));
  }
  std::string last = absl::StrCat("position ", explanation.header.position());
  if (const std::string target =
          TargetWords(summary.target(), summary.predictions());
      !target.empty()) {
    last = absl::StrCat("target: ", target, ", ", last);
  }
  lines.push_back(last);
  return lines;
}

// One number per entry out of those of `channels` equal parts.
template <class Fold>
std::vector<float> FoldChannels(const std::vector<float>& values,
                                int64_t channels, Fold fold) {
  const size_t size = values.size() / static_cast<size_t>(channels);
  std::vector<float> out(size);
  for (size_t i = 0; i < size; ++i) {
    double sum = 0;
    for (size_t at = i; at < values.size(); at += size) {
      sum = fold(sum, static_cast<double>(values[at]), at == i);
    }
    out[i] = static_cast<float>(sum);
  }
  return out;
}

// The reductions that a reply with every channel allows; the first is what the
// server would have returned by itself.
std::vector<LayerReduction> ReduceChannels(const std::vector<float>& values,
                                           int64_t channels) {
  const double weight = 1.0 / static_cast<double>(channels);
  const auto mean_abs = [weight](double sum, double x, bool) {
    return sum + weight * std::abs(x);
  };
  const auto mean = [weight](double sum, double x, bool) {
    return sum + weight * x;
  };
  const auto largest = [](double best, double x, bool first) {
    return first ? x : std::max(best, x);
  };
  const auto smallest = [](double best, double x, bool first) {
    return first ? x : std::min(best, x);
  };
  const auto square = [weight](double sum, double x, bool) {
    return sum + weight * x * x;
  };
  std::vector<LayerReduction> out = {
      {"mean-abs", FoldChannels(values, channels, mean_abs)},
      {"mean", FoldChannels(values, channels, mean)},
      {"max", FoldChannels(values, channels, largest)},
      {"min", FoldChannels(values, channels, smallest)},
      {"l2", FoldChannels(values, channels, square)}};
  for (float& value : out.back().values) value = std::sqrt(value);
  return out;
}

std::optional<LayerView> MakeLayer(int32_t layer,
                                   const v1::TensorHeader& header,
                                   std::vector<float> values, bool matrix) {
  const int rank = header.shape_size();
  const int inner = matrix ? 2 : 1;  // dimensions without the channels
  if (values.empty() || (rank != inner && rank != inner + 1)) {
    return std::nullopt;
  }
  LayerView view;
  view.layer = layer;
  view.rows = matrix ? header.shape(rank - 2) : 1;
  view.columns = header.shape(rank - 1);
  if (rank == inner + 1) {
    view.reductions = ReduceChannels(values, header.shape(0));
  } else {
    view.reductions.push_back({"as asked for", std::move(values)});
  }
  return view;
}

render::Caption CaptionOf(const Explanation& explanation) {
  return {TitleOf(explanation), CaptionLines(explanation)};
}

render::AttributionFigure TextFigure(const Explanation& explanation,
                                     AttributionView view) {
  render::AttributionFigure figure;
  figure.caption = CaptionOf(explanation);
  figure.position = ShownPosition(explanation, view);
  figure.tokens = std::move(view.labels);
  figure.values = std::move(view.values);
  return figure;
}

// `view` must outlive the figure.
render::MatrixFigure GridFigure(const Explanation& explanation,
                                const AttributionView& view) {
  render::MatrixFigure figure;
  figure.caption = CaptionOf(explanation);
  figure.rows = view.grid_rows;
  figure.columns = view.grid_columns;
  figure.values = view.values;
  return figure;
}

// `layer` must outlive the figure.
render::MatrixFigure LayerFigure(const Explanation& explanation,
                                 const LayerView& layer) {
  render::MatrixFigure figure;
  figure.caption = {
      absl::StrCat(explanation.header.model(), " - layer ", layer.layer),
      {"rows: target position, columns: source position"}};
  figure.rows = layer.rows;
  figure.columns = layer.columns;
  figure.values = layer.values();
  for (const v1::Token& token : explanation.header.tokens()) {
    figure.column_labels.push_back(token.piece());
  }
  figure.row_labels = figure.column_labels;
  return figure;
}

absl::StatusOr<std::vector<AttributionView>> ViewAll(
    std::span<const Explanation> explanations) {
  std::vector<AttributionView> views;
  for (const Explanation& explanation : explanations) {
    absl::StatusOr<AttributionView> view = ViewAttribution(explanation);
    if (!view.ok()) return view.status();
    views.push_back(*std::move(view));
  }
  return views;
}

}  // namespace

std::string TitleOf(const Explanation& explanation) {
  return absl::StrCat(explanation.header.model(), " - ",
                      explanation.header.method());
}

std::optional<size_t> ShownPosition(const Explanation& explanation,
                                    const AttributionView& view) {
  if (view.labels.size() !=
          static_cast<size_t>(explanation.header.tokens_size()) ||
      explanation.header.position() < 0) {
    return std::nullopt;
  }
  return static_cast<size_t>(explanation.header.position());
}

absl::StatusOr<AttributionView> ViewAttribution(const Explanation& explanation,
                                                int point) {
  const auto found = explanation.tensors.find(
      point == 0 ? "attribution"
                 : absl::StrCat("points.", point, ".attribution"));
  if (found == explanation.tensors.end()) {
    return absl::InvalidArgumentError("the reply has no attribution");
  }
  absl::StatusOr<std::vector<float>> values = UnpackFloats(found->second);
  if (!values.ok()) return values.status();
  AttributionView view;
  view.values = *std::move(values);
  const auto& shape = found->second.header().shape();
  if (shape.size() == 2 && !view.values.empty()) {
    view.grid_rows = shape.Get(0);
    view.grid_columns = shape.Get(1);
    return view;
  }
  const size_t count = view.values.size();
  const v1::ExplanationHeader& header = explanation.header;
  if (static_cast<size_t>(header.tokens_size()) == count) {
    for (const v1::Token& token : header.tokens()) {
      // Ids that were given without a tokenizer have no text.
      view.labels.push_back(!token.piece_bytes().empty() ? token.piece_bytes()
                            : !token.piece().empty()
                                ? token.piece()
                                : absl::StrCat("#", token.id()));
    }
  } else if (static_cast<size_t>(explanation.summary.attributions_size()) ==
             count) {
    for (const auto& unit : explanation.summary.attributions()) {
      view.labels.push_back(unit.piece());
    }
  } else {
    for (size_t i = 0; i < count; ++i) view.labels.push_back(absl::StrCat(i));
  }
  if (count == 0) {
    return absl::InvalidArgumentError("the attribution is empty");
  }
  return view;
}

absl::StatusOr<std::vector<LayerView>> ViewLayers(
    const Explanation& explanation, bool matrices) {
  std::map<int32_t, LayerView> layers;
  for (const auto& [name, tensor] : explanation.tensors) {
    absl::string_view number = name;
    int32_t layer = 0;
    if (!absl::ConsumePrefix(&number, "layers.") ||
        !absl::ConsumeSuffix(&number, ".attention") ||
        !absl::SimpleAtoi(number, &layer)) {
      continue;
    }
    absl::StatusOr<std::vector<float>> values = UnpackFloats(tensor);
    if (!values.ok()) return values.status();
    if (auto view =
            MakeLayer(layer, tensor.header(), *std::move(values), matrices)) {
      layers[layer] = *std::move(view);
    }
  }
  std::vector<LayerView> out;
  for (auto& [layer, view] : layers) out.push_back(std::move(view));
  return out;
}

std::optional<Underlay> UnderlayOf(const v1::Input& input,
                                   const std::optional<std::string>& opacity) {
  if (!input.has_image()) return std::nullopt;
  absl::StatusOr<RgbImage> image = DecodeImage(input.image());
  if (!image.ok()) return std::nullopt;
  Underlay underlay{.image = *std::move(image)};
  if (opacity) std::ignore = absl::SimpleAtod(*opacity, &underlay.opacity);
  return underlay;
}

absl::StatusOr<std::string> AttributionPng(
    std::span<const Explanation> explanations,
    const std::optional<Underlay>& underlay) {
  const absl::StatusOr<std::vector<AttributionView>> views =
      ViewAll(explanations);
  if (!views.ok()) return views.status();
  if (views->empty()) return absl::InvalidArgumentError("nothing to draw");
  const Explanation& first = explanations.front();
  if (views->front().grid_rows == 0) {
    std::vector<render::AttributionFigure> figures;
    for (size_t i = 0; i < views->size(); ++i) {
      figures.push_back(TextFigure(explanations[i], (*views)[i]));
    }
    return render::RenderAttributionsPng(figures);
  }
  if (!underlay && views->size() > 1) {
    return absl::InvalidArgumentError(
        "maps side by side need the picture: --image");
  }
  if (!underlay) {
    return render::RenderGridPng(GridFigure(first, views->front()));
  }
  render::OverlayFigure figure;
  figure.caption = CaptionOf(first);
  if (explanations.size() > 1) figure.caption.title = "comparison";
  figure.caption.lines.push_back(
      "framed: the tenth of the patches with the largest values");
  figure.width = underlay->image.width;
  figure.height = underlay->image.height;
  figure.pixels = underlay->image.pixels;
  figure.opacity = underlay->opacity;
  for (size_t i = 0; i < views->size(); ++i) {
    const AttributionView& view = (*views)[i];
    figure.maps.push_back({explanations.size() > 1
                               ? TitleOf(explanations[i])
                               : explanations[i].header.method(),
                           view.grid_rows, view.grid_columns, view.values});
  }
  return render::RenderOverlayPng(figure);
}

absl::StatusOr<std::string> AttributionSvg(const Explanation& explanation) {
  absl::StatusOr<AttributionView> view = ViewAttribution(explanation);
  if (!view.ok()) return view.status();
  if (view->grid_rows > 0) {
    return render::RenderMatrixSvg(GridFigure(explanation, *view),
                                   /*patches=*/true);
  }
  return render::RenderAttributionSvg(
      TextFigure(explanation, *std::move(view)));
}

absl::StatusOr<std::string> LayerPng(const Explanation& explanation,
                                     const LayerView& layer) {
  return render::RenderMatrixPng(LayerFigure(explanation, layer));
}

absl::StatusOr<std::string> LayerSvg(const Explanation& explanation,
                                     const LayerView& layer) {
  return render::RenderMatrixSvg(LayerFigure(explanation, layer),
                                 /*patches=*/false);
}

}  // namespace limpid::cli
