// SPDX-License-Identifier: Apache-2.0
//
// A file with the structure of gtsegs_ijcv.mat, written here.
#include "client/evaluate/segmentation_file.h"

#include <hdf5.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace limpid::evaluate {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

// Writes cell arrays as MATLAB 7.3 does: data sets of references into #refs#.
class MatFile {
 public:
  explicit MatFile(const std::string& path)
      : file_(
            H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)) {
    for (const char* group : {"/#refs#", "/value"}) {
      H5Gclose(H5Gcreate2(file_, group, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }
  }
  ~MatFile() { H5Fclose(file_); }

  hobj_ref_t Array(const std::vector<hsize_t>& sizes,
                   const std::vector<uint8_t>& values) {
    return Write(NextName(), sizes, H5T_NATIVE_UINT8, H5T_STD_U8LE,
                 values.data());
  }
  hobj_ref_t Cells(const std::vector<hobj_ref_t>& cells,
                   const std::string& name = "") {
    return Write(name.empty() ? NextName() : name, {cells.size(), 1},
                 H5T_STD_REF_OBJ, H5T_STD_REF_OBJ, cells.data());
  }

 private:
  std::string NextName() { return "/#refs#/" + std::to_string(next_++); }
  hobj_ref_t Write(const std::string& name, const std::vector<hsize_t>& sizes,
                   hid_t memory, hid_t stored, const void* values) {
    const hid_t space =
        H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
    const hid_t data = H5Dcreate2(file_, name.c_str(), stored, space,
                                  H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(data, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    H5Dclose(data);
    H5Sclose(space);
    hobj_ref_t reference = 0;
    H5Rcreate(&reference, file_, name.c_str(), H5R_OBJECT, -1);
    return reference;
  }

  hid_t file_;
  int next_ = 0;
};

class SegmentationFileTest : public ::testing::Test {
 protected:
  ~SegmentationFileTest() override { std::filesystem::remove(path_); }
  absl::StatusOr<std::vector<Picture>> Read(int64_t size, size_t limit = 0) {
    PictureOptions options;
    options.size = size;
    options.limit = limit;
    return ReadSegmentationFile(path_, options);
  }

  const std::string path_ =
      ::testing::TempDir() + "/gtsegs-" + std::to_string(::getpid()) + ".mat";
};

TEST_F(SegmentationFileTest, ReadsCellsInMatlabsOrder) {
  {
    MatFile file(path_);
    // [3, W, H]: plane, then column, then row; 100 plane + 10 x + y.
    std::vector<uint8_t> pixels, mask;
    for (int plane = 0; plane < 3; ++plane) {
      for (int x = 0; x < 4; ++x) {
        for (int y = 0; y < 4; ++y) {
          pixels.push_back(static_cast<uint8_t>(80 * plane + 10 * x + y));
        }
      }
    }
    for (int x = 0; x < 4; ++x) {
      for (int y = 0; y < 4; ++y) mask.push_back(x == 3 && y < 2 ? 1 : 0);
    }
    const hobj_ref_t color = file.Array({3, 4, 4}, pixels);
    // A grey picture of 2 columns and 1 row.
    const hobj_ref_t gray = file.Array({2, 1}, {7, 9});
    file.Cells({color, gray}, "/value/img");
    file.Cells({file.Cells({file.Array({4, 4}, mask)}),
                file.Cells({file.Array({2, 1}, {0, 1})})},
               "/value/gt");
  }
  const auto pictures = Read(4);
  ASSERT_TRUE(pictures.ok()) << pictures.status();
  ASSERT_EQ(pictures->size(), 2u);
  const Picture& first = (*pictures)[0];
  for (size_t y = 0; y < 4; ++y) {
    for (size_t x = 0; x < 4; ++x) {
      for (size_t plane = 0; plane < 3; ++plane) {
        EXPECT_EQ(first.image.pixels[3 * (4 * y + x) + plane],
                  80 * plane + 10 * x + y);
      }
      EXPECT_EQ(first.mask[4 * y + x], x == 3 && y < 2);
    }
  }
  // Enlarged: masks by the nearest pixel, never between.
  EXPECT_THAT((*pictures)[1].mask, ElementsAreArray({0, 0, 1, 1, 0, 0, 1, 1, 0,
                                                     0, 1, 1, 0, 0, 1, 1}));
  EXPECT_EQ((*pictures)[1].image.pixels[0], 7);
  EXPECT_EQ((*pictures)[1].image.pixels[9], 9);
  EXPECT_EQ(Read(4, 1)->size(), 1u);
}

TEST_F(SegmentationFileTest, NamesWhatDoesNotFit) {
  {
    MatFile file(path_);
    file.Cells({file.Array({3, 2, 2}, std::vector<uint8_t>(12))}, "/value/img");
    file.Cells({file.Cells({file.Array({2, 1}, {0, 1})})}, "/value/gt");
  }
  EXPECT_THAT(Read(4).status().message(), HasSubstr("/value/gt{1}"));
  {
    MatFile file(path_);
    file.Cells({file.Array({5}, {1, 2, 3, 4, 5})}, "/value/img");
    file.Cells({file.Array({2, 1}, {0, 1})}, "/value/gt");
  }
  EXPECT_THAT(Read(4).status().message(), HasSubstr("shape [5]"));
  {
    MatFile file(path_);
    file.Cells({file.Array({2, 1}, {1, 2})}, "/value/img");
  }
  EXPECT_THAT(Read(4).status().message(), HasSubstr("/value/gt"));
  std::ofstream(path_) << "no HDF5";
  EXPECT_THAT(Read(4).status().message(), HasSubstr("no HDF5 file"));
}

}  // namespace
}  // namespace limpid::evaluate
