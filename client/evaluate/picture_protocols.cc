// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/picture_protocols.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/evaluate/metrics.h"
#include "client/evaluate/perturbation.h"

namespace limpid::evaluate {
namespace {

int64_t Largest(const std::vector<float>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

class PictureProtocol : public Protocol {
 public:
  explicit PictureProtocol(std::vector<Picture> pictures)
      : pictures_(std::move(pictures)) {}
  std::string description() const override {
    return absl::StrCat(num_items(), " pictures of ", pictures_[0].image.width,
                        " x ", pictures_[0].image.height);
  }
  size_t num_items() const override { return pictures_.size(); }
  absl::StatusOr<v1::Input> input(size_t item) const override {
    return PictureInput(pictures_[item].image);
  }
  v1::Target target(size_t, const Reading& reading) const override {
    v1::Target target;
    target.set_class_id(Largest(reading.logits));
    return target;
  }

 protected:
  // The map at the picture's size.
  std::vector<float> Enlarged(size_t item, const Reading& reading,
                              std::span<const float> map) const {
    const RgbImage& image = pictures_[item].image;
    return ResizeBilinear(map, reading.grid_rows, reading.grid_columns,
                          image.height, image.width);
  }

  const std::vector<Picture> pictures_;
};

class PicturePerturbation : public PictureProtocol {
 public:
  using PictureProtocol::PictureProtocol;
  std::string name() const override { return "perturbation"; }
  std::vector<Figure> figures() const override { return PerturbationFigures(); }
  std::vector<Curve> curves() const override { return PerturbationCurves(); }

  absl::StatusOr<std::vector<double>> Judge(
      size_t item, const Reading& reading, std::span<const float> attribution,
      uint64_t seed, const AskLogits& ask) const override {
    const int64_t predicted = Largest(reading.logits);
    const std::vector<size_t> order =
        DescendingOrder(Enlarged(item, reading, attribution), seed);
    return JudgePerturbation(
        order,
        [&](const std::vector<size_t>& from,
            size_t removed) -> absl::StatusOr<bool> {
          RgbImage image = pictures_[item].image;
          for (size_t i = 0; i < removed; ++i) {
            std::fill_n(
                image.pixels.begin() + static_cast<ptrdiff_t>(3 * from[i]), 3,
                uint8_t{0});
          }
          const absl::StatusOr<v1::Input> input = PictureInput(image);
          if (!input.ok()) return input.status();
          const absl::StatusOr<std::vector<float>> logits = ask(*input);
          if (!logits.ok()) return logits.status();
          return Largest(*logits) == predicted;
        });
  }
};

// Scores of JudgeMask.
enum : size_t {
  kRight,
  kAll,
  kObjectBoth,
  kObjectAny,
  kBackBoth,
  kBackAny,
  kPrecision,
  kF1,
  kRoc
};

double Share(double part, double whole) { return whole > 0 ? part / whole : 0; }

class Segmentation : public PictureProtocol {
 public:
  using PictureProtocol::PictureProtocol;
  std::string name() const override { return "segmentation"; }
  std::vector<Figure> figures() const override {
    using Sums = std::span<const double>;
    return {
        {"mean_iou", "mIoU %", true, 1, false,
         [](Sums sums, double) {
           return 50 * (Share(sums[kObjectBoth], sums[kObjectAny]) +
                        Share(sums[kBackBoth], sums[kBackAny]));
         }},
        {"pixel_accuracy", "pixel accuracy %", true, 1, false,
         [](Sums sums, double) {
           return 100 * Share(sums[kRight], sums[kAll]);
         }},
        {"mean_average_precision", "mAP %", true, 1, false,
         [](Sums sums, double items) {
           return 100 * sums[kPrecision] / items;
         }},
        {"f1", "F1 %", true, 1, false,
         [](Sums sums, double items) { return 100 * sums[kF1] / items; }},
        MeanFigure("roc_area", "AUROC %", true, kRoc, 100, 1),
    };
  }

  absl::StatusOr<std::vector<double>> Judge(size_t item, const Reading& reading,
                                            std::span<const float> attribution,
                                            uint64_t,
                                            const AskLogits&) const override {
    std::vector<float> sizes(attribution.begin(), attribution.end());
    for (float& x : sizes) x = std::abs(x);
    return JudgeMask(Enlarged(item, reading, sizes), pictures_[item].mask);
  }
};

}  // namespace

std::vector<double> JudgeMask(std::span<const float> map,
                              std::span<const uint8_t> mask) {
  const double mean = std::accumulate(map.begin(), map.end(), 0.0) /
                      static_cast<double>(map.size());
  double both = 0, found = 0, real = 0;
  for (size_t i = 0; i < map.size(); ++i) {
    const bool object = map[i] > mean;
    found += object ? 1 : 0;
    real += mask[i] ? 1 : 0;
    both += object && mask[i] ? 1 : 0;
  }
  const double all = static_cast<double>(map.size());
  const double any = found + real - both;
  // Background: everything outside the other's set.
  std::vector<double> scores(kRoc + 1);
  scores[kRight] = all - any + both;
  scores[kAll] = all;
  scores[kObjectBoth] = both;
  scores[kObjectAny] = any;
  scores[kBackBoth] = all - any;
  scores[kBackAny] = all - both;
  std::vector<float> planes = MinMax(map);
  std::vector<uint8_t> labels(mask.begin(), mask.end());
  for (size_t i = 0; i < map.size(); ++i) {
    planes.push_back(1 - planes[i]);
    labels.push_back(mask[i] ? 0 : 1);
  }
  scores[kPrecision] = AveragePrecision(planes, labels);
  scores[kF1] = Share(2 * both, found + real);
  scores[kRoc] = RocArea(map, mask);
  return scores;
}

std::unique_ptr<Protocol> MakePicturePerturbation(
    std::vector<Picture> pictures) {
  return std::make_unique<PicturePerturbation>(std::move(pictures));
}

std::unique_ptr<Protocol> MakeSegmentation(std::vector<Picture> pictures) {
  return std::make_unique<Segmentation>(std::move(pictures));
}

}  // namespace limpid::evaluate
