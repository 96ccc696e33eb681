// SPDX-License-Identifier: Apache-2.0
//
// Protocols on pictures: black out pixels in the order of their relevance, and
// compare heat maps with masks.
#pragma once

#include <memory>
#include <vector>

#include "client/evaluate/picture_data.h"
#include "client/evaluate/protocol.h"

namespace limpid::evaluate {

// The map, bilinearly enlarged, ranks the pixels; 10, 20, ... 90 % of them are
// set to black in the picture before normalisation, the most relevant first
// (positive) or the least relevant first (negative); top-1 accuracy against the
// prediction on the whole picture; areas as for texts.
std::unique_ptr<Protocol> MakePicturePerturbation(
    std::vector<Picture> pictures);

// The magnitudes of the map, bilinearly enlarged, against the masks.
// Foreground is what exceeds the map's mean. Pixel accuracy and mIoU (mean over
// object and background) come from sums over all pictures; mAP is the mean over
// pictures of the average precision of the planes (1 - map, map), map scaled to
// 0...1; F1 and the area under the ROC curve are means over pictures. All but
// the last depend on the distribution of the map's values, not only on their
// order. Every picture needs a mask.
std::unique_ptr<Protocol> MakeSegmentation(std::vector<Picture> pictures);

// Scores of one map: pixels that are right, all pixels, intersection and union
// of object and of background, average precision, F1,
// area under the ROC curve.
std::vector<double> JudgeMask(std::span<const float> map,
                              std::span<const uint8_t> mask);

}  // namespace limpid::evaluate
