// SPDX-License-Identifier: Apache-2.0
//
// gtsegs_ijcv.mat, the published file of ImageNet-Segmentation: MATLAB 7.3,
// which is HDF5. /value/img is a cell array of pictures, /value/gt one of cells
// that hold a mask each; HDF5 sees dimensions in the reverse order of MATLAB.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/evaluate/picture_data.h"

namespace limpid::evaluate {

// The first `options.limit` pictures with their masks (any value but 0:
// object). INVALID_ARGUMENT names what is missing or has another shape. One
// call at a time: HDF5 is not thread-safe.
absl::StatusOr<std::vector<Picture>> ReadSegmentationFile(
    const std::string& path, const PictureOptions& options);

}  // namespace limpid::evaluate
