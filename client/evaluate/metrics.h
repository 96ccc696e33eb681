// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of the protocols: areas, ranks, precision, overlap. All
// functions are pure and thread-safe; values are finite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace limpid::evaluate {

// Area under the points (x, y) by the trapezoid rule; x ascends.
double TrapezoidArea(std::span<const double> x, std::span<const double> y);

// Indices by descending value; equal values in a random order that the seed
// fixes, so that no place in the input is favoured.
std::vector<size_t> DescendingOrder(std::span<const float> values,
                                    uint64_t seed);

// Number of parts that make up a share of `total`: ceil(fraction * total), with
// fraction = tenths / 10 exactly.
size_t CountOfTenths(int tenths, size_t total);

// Ranks from 1; equal values get the mean of their ranks.
std::vector<double> AverageRanks(std::span<const double> values);

// Spearman's rank correlation with ties: Pearson's of the average ranks. 0 if
// either side is constant or there are fewer than two values.
double Spearman(std::span<const double> a, std::span<const double> b);

// Area under the steps of precision over recall: sum over the distinct scores,
// descending, of (R_n - R_{n-1}) P_n. 0 without positives.
double AveragePrecision(std::span<const float> scores,
                        std::span<const uint8_t> positive);

// Probability that a positive has a higher score than another one, ties counted
// half: the area under the ROC curve. 0.5 if either kind is missing.
double RocArea(std::span<const float> scores,
               std::span<const uint8_t> positive);

// Share of the positive among the k highest scores; k is cut to the number of
// scores. Ties count by their expectation. 0 without scores.
double PrecisionAtK(std::span<const double> scores,
                    std::span<const uint8_t> positive, size_t k);

// Rank from 1 of the best of `wanted` among all values, highest first; the mean
// rank where others have the same value.
double BestRank(std::span<const double> values, std::span<const size_t> wanted);

// A grid [rows, columns] at the size [height, width], bilinear with pixel
// centres (align_corners = false), edges repeated.
std::vector<float> ResizeBilinear(std::span<const float> grid, int64_t rows,
                                  int64_t columns, int64_t height,
                                  int64_t width);

// (x - min) / (max - min); zeros for a constant map.
std::vector<float> MinMax(std::span<const float> values);

// Probabilities of scores.
std::vector<double> Softmax(std::span<const float> scores);

}  // namespace limpid::evaluate
