// SPDX-License-Identifier: Apache-2.0
//
// Tensors are unpacked exactly, and impossible ones are refused before anything
// is allocated for them.
#include "client/tensor_codec.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_explanation_service.h"

namespace limpid {
namespace {

using ::testing::ElementsAre;
using testing::MakeIds;
using testing::MakeTensor;

// Makes number of bytes and checksum fit the data again.
void Repair(v1::Tensor& tensor) {
  tensor.mutable_header()->set_num_bytes(
      static_cast<int64_t>(tensor.data().size()));
  tensor.mutable_header()->set_crc32(Crc32(tensor.data()));
}

void ExpectDamaged(const v1::Tensor& tensor) {
  const absl::Status status = CheckTensor(tensor);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_FALSE(UnpackFloats(tensor).ok());
}

TEST(TensorCodecTest, UnpacksPlainFloats) {
  const auto values = UnpackFloats(MakeTensor("a", {2, 2}, {1, -2, 3.5f, 0}));
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_THAT(*values, ElementsAre(1, -2, 3.5f, 0));
}

TEST(TensorCodecTest, UnpacksScalarsAndEmptyTensors) {
  EXPECT_THAT(*UnpackFloats(MakeTensor("a", {}, {7})), ElementsAre(7));
  EXPECT_THAT(*UnpackFloats(MakeTensor("a", {0, 5}, {})), ElementsAre());
}

TEST(TensorCodecTest, UnpacksIntegers) {
  const auto ids = UnpackInts(MakeIds("tokens", {1, -5, int64_t{1} << 40}));
  ASSERT_TRUE(ids.ok());
  EXPECT_THAT(*ids, ElementsAre(1, -5, int64_t{1} << 40));
  EXPECT_FALSE(UnpackInts(MakeTensor("a", {1}, {1})).ok());
}

TEST(TensorCodecTest, UnpacksLowerTriangles) {
  v1::Tensor tensor = MakeTensor("a", {6}, {1, 2, 3, 4, 5, 6});
  tensor.mutable_header()->set_layout(v1::TENSOR_LAYOUT_LOWER_TRIANGULAR);
  tensor.mutable_header()->clear_shape();
  tensor.mutable_header()->add_shape(3);
  tensor.mutable_header()->add_shape(3);
  EXPECT_THAT(*UnpackFloats(tensor), ElementsAre(1, 0, 0, 2, 3, 0, 4, 5, 6));
}

TEST(TensorCodecTest, UnpacksLowerTrianglesOfSeveralChannels) {
  v1::Tensor tensor = MakeTensor("a", {6}, {1, 2, 3, 4, 5, 6});
  tensor.mutable_header()->set_layout(v1::TENSOR_LAYOUT_LOWER_TRIANGULAR);
  tensor.mutable_header()->clear_shape();
  for (const int size : {2, 2, 2}) tensor.mutable_header()->add_shape(size);
  EXPECT_THAT(*UnpackFloats(tensor), ElementsAre(1, 0, 2, 3, 4, 0, 5, 6));
}

TEST(TensorCodecTest, UnpacksBytes) {
  v1::Tensor tensor = MakeTensor("a", {3}, {});
  tensor.mutable_header()->set_data_type(v1::DATA_TYPE_UINT8);
  tensor.mutable_header()->mutable_quantization()->set_scale(0.5);
  tensor.mutable_header()->mutable_quantization()->set_offset(-1);
  tensor.set_data(std::string("\x00\x02\xff", 3));
  Repair(tensor);
  EXPECT_THAT(*UnpackFloats(tensor), ElementsAre(-1, 0, 126.5f));
}

TEST(TensorCodecTest, ConvertsHalvesExactly) {
  EXPECT_EQ(HalfToFloat(0x3C00), 1.0f);
  EXPECT_EQ(HalfToFloat(0xC000), -2.0f);
  EXPECT_EQ(HalfToFloat(0x7BFF), 65504.0f);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0x0400), 0x1p-14f);
  EXPECT_EQ(HalfToFloat(0x7C00), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7E00)));
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
}

TEST(TensorCodecTest, UnpacksHalvesAndDoubles) {
  v1::Tensor tensor = MakeTensor("a", {1}, {});
  tensor.mutable_header()->set_data_type(v1::DATA_TYPE_FLOAT16);
  tensor.set_data(std::string("\x00\x3c", 2));
  Repair(tensor);
  EXPECT_THAT(*UnpackFloats(tensor), ElementsAre(1.0f));
  const double number = 0.25;
  tensor.mutable_header()->set_data_type(v1::DATA_TYPE_FLOAT64);
  tensor.set_data(&number, sizeof(number));
  Repair(tensor);
  EXPECT_THAT(*UnpackFloats(tensor), ElementsAre(0.25f));
}

TEST(TensorCodecTest, ReadsNumbersInPlaceOfBytes) {
  v1::Tensor tensor = MakeTensor("a", {2}, {1, 2});
  tensor.add_floats(1);
  tensor.add_floats(2);
  ExpectDamaged(tensor);  // both
  tensor.clear_data();
  EXPECT_THAT(*UnpackFloats(tensor), ElementsAre(1, 2));
  tensor.set_floats(1, 3);
  ExpectDamaged(tensor);  // checksum
}

TEST(TensorCodecTest, RefusesDamage) {
  v1::Tensor tensor = MakeTensor("a", {2}, {1, 2});
  tensor.mutable_data()->back() ^= 1;
  ExpectDamaged(tensor);
  tensor = MakeTensor("a", {2}, {1, 2});
  tensor.mutable_data()->pop_back();
  ExpectDamaged(tensor);
  Repair(tensor);  // now the sizes do not fit
  ExpectDamaged(tensor);
}

TEST(TensorCodecTest, RefusesImpossibleSizes) {
  const int64_t huge = int64_t{1} << 62;
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{-1},
                                            {huge, 4},
                                            {huge, 2},
                                            {huge},
                                            {-2, -1},
                                            {3},
                                            {1, 1, 1, 1, 1, 1, 1, 1, 2}}) {
    ExpectDamaged(MakeTensor("a", shape, {1, 2}));
  }
}

TEST(TensorCodecTest, RefusesImpossibleTriangles) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{},
        {2},
        {2, 1},
        {int64_t{1} << 40, int64_t{1} << 40},
        {-1, -1}}) {
    v1::Tensor tensor = MakeTensor("a", shape, {1, 2});
    tensor.mutable_header()->set_layout(v1::TENSOR_LAYOUT_LOWER_TRIANGULAR);
    ExpectDamaged(tensor);
  }
}

TEST(TensorCodecTest, RefusesTensorsOverTheLimitBeforeTheyCome) {
  TensorLimits limits;
  limits.max_bytes = 1000;
  v1::TensorHeader header = MakeTensor("a", {251}, {}).header();
  header.set_num_bytes(1004);
  EXPECT_FALSE(CheckHeader(header, limits).ok());
}

TEST(TensorCodecTest, RefusesUnknownTypesAndLayouts) {
  v1::Tensor tensor = MakeTensor("a", {1}, {1});
  tensor.mutable_header()->set_data_type(static_cast<v1::DataType>(99));
  ExpectDamaged(tensor);
  tensor = MakeTensor("a", {1}, {1});
  tensor.mutable_header()->set_layout(v1::TENSOR_LAYOUT_UNSPECIFIED);
  ExpectDamaged(tensor);
}

TEST(TensorCodecTest, RefusesNamesThatAreNotNames) {
  for (const char* name : {"", "__metadata__", "a/../b", "a\nb", "\x1b[2J"}) {
    ExpectDamaged(MakeTensor(name, {1}, {1}));
  }
  ExpectDamaged(MakeTensor(std::string(1000, 'a'), {1}, {1}));
}

}  // namespace
}  // namespace limpid
