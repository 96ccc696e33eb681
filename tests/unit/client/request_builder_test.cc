// SPDX-License-Identifier: Apache-2.0
//
// Flags become exactly the fields that were asked for.
#include "client/cli/request_builder.h"

#include <google/protobuf/stubs/common.h>

#include <cstddef>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/checkpoint/safetensors.h"

namespace limpid::cli {
namespace {

ExplainFlags Flags() {
  ExplainFlags flags;
  flags.model = "m";
  return flags;
}

TEST(RequestBuilderTest, NothingIsSetThatWasNotWritten) {
  const auto request = BuildRequest(Flags());
  ASSERT_TRUE(request.ok());
  v1::ExplainRequest expected;
  expected.set_model("m");
  EXPECT_EQ(request->SerializeAsString(), expected.SerializeAsString());
}

TEST(RequestBuilderTest, EveryFlagReachesItsField) {
  ExplainFlags flags = Flags();
  flags.method = "alti";
  flags.target = "class:1";
  flags.position = "4";
  flags.attention = "matrix";
  flags.channels = "wnorm";
  flags.form = "no-gate";
  flags.layers = "0-1";
  flags.include_skip = "false";
  flags.top_k = "7";
  flags.precision = "checkpoint";
  flags.options = {"steps=16"};
  flags.head_form = flags.faithfulness = flags.debug_tensors =
      flags.validate_only = true;
  const auto request = BuildRequest(flags);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->method(), "alti");
  ASSERT_EQ(request->points_size(), 1);
  EXPECT_EQ(request->points(0).target().class_id(), 1);
  EXPECT_EQ(request->points(0).position().index(), 4);
  EXPECT_EQ(request->attention().kind(), v1::ATTENTION_KIND_MATRIX);
  EXPECT_EQ(request->attention().channel_reduction(),
            v1::CHANNEL_REDUCTION_WNORM);
  EXPECT_EQ(request->attention().form(), v1::ATTENTION_FORM_NO_GATE);
  EXPECT_EQ(request->attention().layers_size(), 2);
  EXPECT_TRUE(request->attention().has_include_skip());
  EXPECT_FALSE(request->attention().include_skip());
  EXPECT_TRUE(request->attention().head_form());
  EXPECT_EQ(request->output().top_k(), 7);
  EXPECT_TRUE(request->output().debug_tensors());
  EXPECT_FALSE(request->output().logits());
  EXPECT_EQ(request->precision(), v1::PRECISION_CHECKPOINT);
  EXPECT_EQ(request->options().steps(), 16);
  EXPECT_TRUE(request->faithfulness().enabled());
  EXPECT_TRUE(request->validate_only());
}

TEST(RequestBuilderTest, SavingAsksForLogits) {
  ExplainFlags flags = Flags();
  flags.save = "f";
  EXPECT_TRUE(BuildRequest(flags)->output().logits());
  flags = Flags();
  flags.out = "d";
  EXPECT_TRUE(BuildRequest(flags)->output().logits());
}

TEST(RequestBuilderTest, MistakesNameTheirFlag) {
  ExplainFlags flags = Flags();
  flags.layers = "x";
  EXPECT_NE(BuildRequest(flags).status().ToString().find("--layers"),
            std::string::npos);
  flags = Flags();
  flags.top_k = "many";
  EXPECT_NE(BuildRequest(flags).status().ToString().find("--top-k"),
            std::string::npos);
}

TEST(RequestBuilderTest, TextFilesAreReadByteForByte) {
  const std::string path = ::testing::TempDir() + "/text";
  const std::string bytes("a\0b\r\n\xff\n", 7);
  std::ofstream(path, std::ios::binary) << bytes;
  ExplainFlags flags = Flags();
  flags.text_file = path;
  const auto input = BuildInput(flags);
  ASSERT_TRUE(input.ok());
  EXPECT_EQ(input->text(), bytes);
}

TEST(RequestBuilderTest, TextThatIsNotUtf8IsSentAsItIs) {
  ExplainFlags flags = Flags();
  flags.text = "caf\xe9 \xff";
  const auto input = BuildInput(flags);
  ASSERT_TRUE(input.ok());
  std::string bytes;
  ASSERT_TRUE(input->SerializeToString(&bytes));
  EXPECT_NE(bytes.find("caf\xe9 \xff"), std::string::npos);
}

TEST(RequestBuilderTest, EmptyInputsAreStillInputs) {
  ExplainFlags flags = Flags();
  flags.text = "";
  EXPECT_EQ(BuildInput(flags)->kind_case(), v1::Input::kText);
  flags = Flags();
  flags.tokens = "";
  EXPECT_EQ(BuildInput(flags)->kind_case(), v1::Input::kTokens);
}

TEST(RequestBuilderTest, PixelsComeFromTheirTensor) {
  const std::string path = ::testing::TempDir() + "/pixels.safetensors";
  const std::vector<float> values = {1, 2, 3};
  const TensorView view{DType::kFloat32,
                        {3, 1, 1},
                        std::as_bytes(std::span<const float>(values))};
  ASSERT_TRUE(
      WriteSafetensors(path, {{"pixels", view}, {"other", view}}, {}).ok());
  ExplainFlags flags = Flags();
  flags.pixels = path;
  const auto input = BuildInput(flags);
  ASSERT_TRUE(input.ok()) << input.status();
  EXPECT_EQ(input->pixels().header().shape_size(), 3);
  EXPECT_EQ(input->pixels().header().data_type(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(input->pixels().data().size(), 12u);
  ASSERT_TRUE(WriteSafetensors(path, {{"other", view}}, {}).ok());
  EXPECT_FALSE(BuildInput(flags).ok());
}

TEST(RequestBuilderTest, FilesThatCanNotBeReadAreMistakes) {
  ExplainFlags flags = Flags();
  flags.text_file = "/nonexistent";
  EXPECT_FALSE(BuildInput(flags).ok());
  flags = Flags();
  flags.image = ::testing::TempDir();  // a folder
  EXPECT_FALSE(BuildInput(flags).ok());
  flags = Flags();
  flags.pixels = "/nonexistent";
  EXPECT_FALSE(BuildInput(flags).ok());
}

}  // namespace
}  // namespace limpid::cli
