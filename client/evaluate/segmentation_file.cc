// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/segmentation_file.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/evaluate/hdf5_library.h"
#include "client/evaluate/protocol.h"

namespace limpid::evaluate {
namespace {

// Limit of a picture's side, so that a damaged file can't ask for all memory.
constexpr hsize_t kMaxSide = 16384;
// H5F_ACC_RDONLY, a macro that calls into a library that is not linked.
constexpr unsigned kReadOnly = 0;
constexpr hid_t kDefaults = 0;  // H5P_DEFAULT

// An HDF5 identifier, closed at the end.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  hid_t get() const { return id_; }
  bool ok() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// Keeps HDF5 from printing its error stack.
class QuietErrors {
 public:
  QuietErrors() {
    Hdf5().H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    Hdf5().H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~QuietErrors() { Hdf5().H5Eset_auto2(H5E_DEFAULT, function_, data_); }
  QuietErrors(const QuietErrors&) = delete;
  QuietErrors& operator=(const QuietErrors&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

bool HoldsReferences(hid_t dataset) {
  const Handle type(Hdf5().H5Dget_type(dataset), Hdf5().H5Tclose);
  return type.ok() && Hdf5().H5Tget_class(type.get()) == H5T_REFERENCE;
}

std::vector<hsize_t> Dimensions(hid_t dataset) {
  const Handle space(Hdf5().H5Dget_space(dataset), Hdf5().H5Sclose);
  const int rank =
      space.ok() ? Hdf5().H5Sget_simple_extent_ndims(space.get()) : -1;
  if (rank < 0) return {};
  std::vector<hsize_t> sizes(static_cast<size_t>(rank));
  Hdf5().H5Sget_simple_extent_dims(space.get(), sizes.data(), nullptr);
  return sizes;
}

// The references of a cell array, as one list.
absl::StatusOr<std::vector<hobj_ref_t>> ReadCells(hid_t dataset,
                                                  const std::string& name) {
  hsize_t count = 1;
  for (const hsize_t size : Dimensions(dataset)) count *= size;
  if (!HoldsReferences(dataset) || count == 0 || count > 1'000'000) {
    return DataError(absl::StrCat(name, " is no cell array"));
  }
  std::vector<hobj_ref_t> cells(count);
  if (Hdf5().H5Dread(dataset, *Hdf5().H5T_STD_REF_OBJ_g, H5S_ALL, H5S_ALL,
                     kDefaults, cells.data()) < 0) {
    return DataError(absl::StrCat(name, " can't be read"));
  }
  return cells;
}

// Numbers of an array as HDF5 lays them out.
struct Array {
  std::vector<hsize_t> sizes;
  std::vector<uint8_t> values;
};

// The array behind a reference; a cell of one element is looked into.
absl::StatusOr<Array> ReadArray(hid_t file, hobj_ref_t reference,
                                const std::string& name) {
  for (int depth = 0; depth < 4; ++depth) {
    const Handle dataset(
        Hdf5().H5Rdereference2(file, kDefaults, H5R_OBJECT, &reference),
        Hdf5().H5Oclose);
    if (!dataset.ok() || Hdf5().H5Iget_type(dataset.get()) != H5I_DATASET) {
      return DataError(absl::StrCat(name, " refers to nothing"));
    }
    if (HoldsReferences(dataset.get())) {
      const auto cells = ReadCells(dataset.get(), name);
      if (!cells.ok()) return cells.status();
      reference = cells->front();
      continue;
    }
    Array array{Dimensions(dataset.get()), {}};
    const auto& sizes = array.sizes;
    const bool flat = sizes.size() == 2;
    if (!(flat || (sizes.size() == 3 && sizes[0] == 3)) ||
        std::any_of(sizes.begin(), sizes.end(), [](hsize_t size) {
          return size == 0 || size > kMaxSide;
        })) {
      return DataError(absl::StrCat(name, " has the shape [",
                                    absl::StrJoin(sizes, ", "),
                                    "], not [W, H] or [3, W, H]"));
    }
    array.values.resize((flat ? 1 : 3) * sizes.end()[-1] * sizes.end()[-2]);
    if (Hdf5().H5Dread(dataset.get(), *Hdf5().H5T_NATIVE_UINT8_g, H5S_ALL,
                       H5S_ALL, kDefaults, array.values.data()) < 0) {
      return DataError(absl::StrCat(name, " holds no numbers"));
    }
    return array;
  }
  return DataError(absl::StrCat(name, " is a cell in a cell in a cell"));
}

// Columns of MATLAB, [planes, W, H], to rows, [H, W, planes].
std::vector<uint8_t> Transposed(const Array& array, size_t planes) {
  const size_t width = array.sizes.end()[-2], height = array.sizes.end()[-1];
  const bool gray = array.sizes.size() == 2;
  std::vector<uint8_t> result;
  result.reserve(width * height * planes);
  for (size_t y = 0; y < height; ++y) {
    for (size_t x = 0; x < width; ++x) {
      for (size_t plane = 0; plane < planes; ++plane) {
        result.push_back(
            array.values[((gray ? 0 : plane) * width + x) * height + y]);
      }
    }
  }
  return result;
}

absl::StatusOr<Picture> ReadPair(hid_t file, hobj_ref_t picture,
                                 hobj_ref_t truth, size_t number,
                                 int64_t size) {
  const auto pixels =
      ReadArray(file, picture, absl::StrCat("/value/img{", number + 1, "}"));
  if (!pixels.ok()) return pixels.status();
  const std::string name = absl::StrCat("/value/gt{", number + 1, "}");
  const auto mask = ReadArray(file, truth, name);
  if (!mask.ok()) return mask.status();
  RgbImage image;
  image.width = static_cast<int64_t>(pixels->sizes.end()[-2]);
  image.height = static_cast<int64_t>(pixels->sizes.end()[-1]);
  if (mask->sizes.size() != 2 || mask->sizes[0] != pixels->sizes.end()[-2] ||
      mask->sizes[1] != pixels->sizes.end()[-1]) {
    return DataError(absl::StrCat(name, " is not of its picture's size"));
  }
  image.pixels = Transposed(*pixels, 3);
  std::vector<uint8_t> object = Transposed(*mask, 1);
  for (uint8_t& x : object) x = x != 0;
  return PrepareMasked(absl::StrCat(number), image, object, size);
}

}  // namespace

absl::StatusOr<std::vector<Picture>> ReadSegmentationFile(
    const std::string& path, const PictureOptions& options) {
  if (absl::Status loaded = LoadHdf5(); !loaded.ok()) return loaded;
  const QuietErrors quiet;
  const Handle file(Hdf5().H5Fopen(path.c_str(), kReadOnly, kDefaults),
                    Hdf5().H5Fclose);
  if (!file.ok()) {
    return DataError(absl::StrCat(path, " is no HDF5 file (MATLAB 7.3)"));
  }
  std::vector<std::vector<hobj_ref_t>> cells;
  for (const char* name : {"/value/img", "/value/gt"}) {
    const Handle dataset(Hdf5().H5Dopen2(file.get(), name, kDefaults),
                         Hdf5().H5Dclose);
    if (!dataset.ok()) {
      return DataError(absl::StrCat(path, " has no ", name));
    }
    auto read = ReadCells(dataset.get(), name);
    if (!read.ok()) return read.status();
    cells.push_back(*std::move(read));
  }
  if (cells[0].size() != cells[1].size()) {
    return DataError(absl::StrCat("/value/img has ", cells[0].size(),
                                  " cells, /value/gt ", cells[1].size()));
  }
  size_t count = cells[0].size();
  if (options.limit > 0) count = std::min(count, options.limit);
  std::vector<Picture> pictures;
  for (size_t i = 0; i < count; ++i) {
    auto picture =
        ReadPair(file.get(), cells[0][i], cells[1][i], i, options.size);
    if (!picture.ok()) return picture.status();
    pictures.push_back(*std::move(picture));
  }
  return pictures;
}

}  // namespace limpid::evaluate
