// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/encode.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "server/rpc/half.h"
#include "server/rpc/safe_text.h"

namespace limpid {
namespace {

NamedTensor Floats(const std::string& name, std::vector<int64_t> shape,
                   const std::vector<float>& values) {
  NamedTensor tensor;
  tensor.name = name;
  tensor.shape = std::move(shape);
  tensor.bytes.resize(values.size() * 4);
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

NamedTensor Matrix() {
  NamedTensor tensor =
      Floats("layers.0.attention", {1, 3, 3}, {1, 0, 0, 2, 3, 0, 4, 5, 6});
  tensor.lower_triangular = true;
  return tensor;
}

template <typename T>
std::vector<T> Elements(const v1::Tensor& tensor) {
  std::vector<T> values(tensor.data().size() / sizeof(T));
  std::memcpy(values.data(), tensor.data().data(), tensor.data().size());
  return values;
}

TEST(EncodeTest, FloatsGoOutAsTheyAre) {
  const auto tensor = EncodeTensor(Floats("x", {2}, {1.5f, -2}), {});
  ASSERT_TRUE(tensor.ok());
  EXPECT_EQ(Elements<float>(*tensor), (std::vector<float>{1.5f, -2}));
  EXPECT_EQ(tensor->header().data_type(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(tensor->header().layout(), v1::TENSOR_LAYOUT_ROW_MAJOR);
  EXPECT_EQ(tensor->header().num_bytes(), 8);
  EXPECT_EQ(tensor->header().crc32(),
            crc32(0, reinterpret_cast<const Bytef*>(tensor->data().data()), 8));
}

TEST(EncodeTest, LowerTrianglesArePackedRowByRow) {
  EncodeOptions options;
  options.lower_triangular = true;
  const auto packed = EncodeTensor(Matrix(), options);
  EXPECT_EQ(packed->header().layout(), v1::TENSOR_LAYOUT_LOWER_TRIANGULAR);
  EXPECT_EQ(packed->header().shape_size(), 3);
  EXPECT_EQ(Elements<float>(*packed), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  NamedTensor full = Matrix();
  full.lower_triangular = false;
  EXPECT_EQ(EncodeTensor(full, options)->header().layout(),
            v1::TENSOR_LAYOUT_ROW_MAJOR);
}

TEST(EncodeTest, SmallTypesConcernAttentionOnly) {
  EncodeOptions options;
  options.attention_type = v1::DATA_TYPE_FLOAT16;
  EXPECT_EQ(Elements<uint16_t>(*EncodeTensor(Matrix(), options))[3],
            ToHalf(2.0f));
  EXPECT_EQ(EncodeTensor(Floats("attribution", {1}, {1}), options)
                ->header()
                .data_type(),
            v1::DATA_TYPE_FLOAT32);
  options.attention_type = v1::DATA_TYPE_UINT8;
  const auto bytes = EncodeTensor(Matrix(), options);
  const auto& map = bytes->header().quantization();
  const std::vector<uint8_t> steps = Elements<uint8_t>(*bytes);
  EXPECT_NEAR(map.offset() + map.scale() * steps[8], 6, 1e-9);
  EXPECT_NEAR(map.offset() + map.scale() * steps[6], 4, map.scale() / 2);
}

TEST(EncodeTest, BytesSurviveConstantAndNonFiniteTensors) {
  EncodeOptions options;
  options.attention_type = v1::DATA_TYPE_UINT8;
  const float inf = std::numeric_limits<float>::infinity();
  const auto odd = EncodeTensor(
      Floats("layers.0.attention", {4}, {std::nanf(""), inf, -inf, 1}),
      options);
  EXPECT_EQ(odd->header().quantization().scale(), 0);
  EXPECT_EQ(odd->header().quantization().offset(), 1);
}

TEST(EncodeTest, NumbersInsteadOfBytes) {
  EncodeOptions options;
  options.floats = true;
  options.attention_type = v1::DATA_TYPE_UINT8;
  const auto tensor = EncodeTensor(Matrix(), options);
  EXPECT_TRUE(tensor->data().empty());
  EXPECT_EQ(tensor->floats_size(), 9);
  EXPECT_EQ(tensor->header().num_bytes(), 36);
  NamedTensor ids;
  ids.name = "tokens";
  ids.dtype = DType::kInt64;
  ids.shape = {1};
  ids.bytes.assign("\x05\0\0\0\0\0\0\0", 8);
  EXPECT_EQ(EncodeTensor(ids, options)->floats(0), 5);
  EXPECT_EQ(EncodeTensor(ids, {})->header().data_type(), v1::DATA_TYPE_INT64);
}

TEST(EncodeTest, BytesThatDoNotFitTheShapeAreOurFault) {
  EXPECT_EQ(EncodeTensor(Floats("x", {3}, {1}), {}).status().code(),
            absl::StatusCode::kInternal);
}

TEST(EncodeTest, HalfRoundsToNearestEven) {
  EXPECT_EQ(ToHalf(1.0f), 0x3C00);
  EXPECT_EQ(ToHalf(-2.0f), 0xC000);
  EXPECT_EQ(ToHalf(65504.0f), 0x7BFF);
  EXPECT_EQ(ToHalf(65519.9f), 0x7BFF);
  EXPECT_EQ(ToHalf(65520.0f), 0x7C00);
  EXPECT_EQ(ToHalf(0x1p-24f), 0x0001);
  EXPECT_EQ(ToHalf(0x1p-25f), 0x0000);
  EXPECT_EQ(ToHalf(0x1.8p-25f), 0x0001);
  EXPECT_EQ(ToHalf(0x1p-14f), 0x0400);
  EXPECT_EQ(ToHalf(1.0f + 0x1p-11f), 0x3C00);
  EXPECT_EQ(ToHalf(1.0f + 0x3p-11f), 0x3C02);
  EXPECT_EQ(ToHalf(-0.0f), 0x8000);
  EXPECT_EQ(ToHalf(std::nanf("")) & 0x7E00, 0x7E00);
  EXPECT_EQ(ToHalf(std::numeric_limits<float>::infinity()), 0x7C00);
}

TEST(EncodeTest, ReplyBytesFollowTheEncoding) {
  ModelInfo model;
  model.num_layers = 2;
  model.num_channels = 3;
  AttentionRequest attention;
  attention.kind = AttentionKind::kMatrix;
  EncodeOptions options;
  const int64_t other = 40, matrices = 2 * 10 * 10 * 4;
  const auto bytes = [&] {
    return EncodedReplyBytes(other + matrices, 10, attention, model, options);
  };
  EXPECT_EQ(bytes(), other + matrices);
  options.attention_type = v1::DATA_TYPE_UINT8;
  EXPECT_EQ(bytes(), other + matrices / 4);
  options.lower_triangular = true;
  EXPECT_NEAR(bytes(), other + 2 * 55, 1);  // rounded up
  attention.kind = AttentionKind::kNone;
  EXPECT_EQ(bytes(), other + matrices);
}

TEST(SafeTextTest, ReplacesWhatIsNoCharacter) {
  EXPECT_EQ(SafeText("h\xC3\xA9"), "h\xC3\xA9");
  EXPECT_EQ(SafeText("\xC3"), "\xEF\xBF\xBD");
  EXPECT_EQ(SafeText("a\xED\xA0\x80"), "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(SafeText("\xF0\x9F\x98\x80"), "\xF0\x9F\x98\x80");
  EXPECT_EQ(FindInvalidUtf8("ab\xFF"), 2u);
  EXPECT_EQ(FindInvalidUtf8("ab"), absl::string_view::npos);
  EXPECT_EQ(CutUtf8("a\xC3\xA9", 2), "a");
}

}  // namespace
}  // namespace limpid
