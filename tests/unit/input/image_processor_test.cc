// SPDX-License-Identifier: Apache-2.0
#include "server/input/image_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/temporary_repository.h"
#include "tests/unit/input/image_files.h"

namespace limpid {
namespace {

using limpid::testing::TemporaryRepository;
using ::testing::HasSubstr;

class ImageProcessorTest : public ::testing::Test {
 protected:
  absl::StatusOr<ImageProcessor> Open(const std::string& json,
                                      int64_t height = 24, int64_t width = 24) {
    folder_.AddFile("preprocessor_config.json", json);
    return ImageProcessor::Open(folder_.path(), height, width);
  }

  // DATA_LOSS that names the file and, if given, exactly these fields.
  void ExpectWrong(const std::string& json, const std::string& reason,
                   const std::vector<std::string>& fields) {
    const absl::Status status = Open(json).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << json << status;
    const std::string file = folder_.path() + "/preprocessor_config.json";
    EXPECT_THAT(std::string(status.message()), HasSubstr(file));
    const ErrorDetails details = GetErrorDetails(status);
    EXPECT_EQ(details.reason, reason) << json;
    EXPECT_EQ(details.metadata.at("file"), file);
    std::vector<std::string> named;
    for (const auto& violation : details.violations) {
      named.push_back(violation.field);
      EXPECT_THAT(std::string(status.message()), HasSubstr(violation.field));
    }
    EXPECT_EQ(named, fields) << json;
  }

  TemporaryRepository folder_;
};

struct GoldenCase {
  const char* name;
  const char* picture;
  int64_t height;
  int64_t width;
};

TEST(ImageProcessorGoldenTest, GivesTheBitsOfPillowAndTorchvision) {
  const GoldenCase cases[] = {
      {"default-wide", "wide", 24, 24},       {"default-tall", "tall", 24, 24},
      {"default-wide-model", "wide", 20, 36}, {"vit", "wide", 24, 24},
      {"default-tall-model", "wide", 36, 20}, {"deit", "tall", 24, 24},
      {"shortest-edge", "wide", 24, 24},      {"padded", "tall", 24, 24},
      {"crop-only", "wide", 24, 24},          {"every-value", "ramp", 16, 16},
  };
  for (const GoldenCase& c : cases) {
    const std::string path = std::string("process/") + c.name;
    const auto processor =
        ImageProcessor::Open(ImagesFolder() + path, c.height, c.width);
    ASSERT_TRUE(processor.ok()) << c.name << processor.status();
    const auto pixels = processor->Process(
        ImageFile(std::string("process/") + c.picture + ".png"));
    ASSERT_TRUE(pixels.ok()) << c.name << pixels.status();
    EXPECT_EQ(pixels->height, c.height);
    EXPECT_EQ(pixels->width, c.width);
    const std::string expected = ImageFile(path + "/expected.f32");
    ASSERT_EQ(pixels->values.size() * sizeof(float), expected.size());
    EXPECT_EQ(
        std::memcmp(pixels->values.data(), expected.data(), expected.size()), 0)
        << c.name;
  }
}

TEST_F(ImageProcessorTest, BoxLeadsBackToThePicture) {
  // 61 x 47 becomes 35 x 27, of which 24 x 24 from (6, 2) are kept: an odd
  // remainder of 11 and 3, rounded to even.
  const auto processor = Open("{}");
  ASSERT_TRUE(processor.ok()) << processor.status();
  const auto wide = processor->Process(ImageFile("process/wide.png"));
  ASSERT_TRUE(wide.ok()) << wide.status();
  EXPECT_EQ(wide->picture_width, 61);
  EXPECT_EQ(wide->picture_height, 47);
  EXPECT_DOUBLE_EQ(wide->box.left, 6 * 61 / 35.0);
  EXPECT_DOUBLE_EQ(wide->box.width, 24 * 61 / 35.0);
  EXPECT_DOUBLE_EQ(wide->box.top, 2 * 47 / 27.0);
  EXPECT_DOUBLE_EQ(wide->box.height, 24 * 47 / 27.0);

  // 33 x 52 becomes 17 x 26; three columns on the left and four on the right
  // are not of the picture.
  const auto padding = Open(R"({"size": {"shortest_edge": 17}})");
  ASSERT_TRUE(padding.ok()) << padding.status();
  const auto tall = padding->Process(ImageFile("process/tall.png"));
  ASSERT_TRUE(tall.ok()) << tall.status();
  EXPECT_DOUBLE_EQ(tall->box.left, -3 * 33 / 17.0);
  EXPECT_DOUBLE_EQ(tall->box.width, 24 * 33 / 17.0);
  EXPECT_DOUBLE_EQ(tall->box.top, 1 * 52 / 26.0);
  EXPECT_DOUBLE_EQ(tall->box.height, 24 * 52 / 26.0);
}

TEST_F(ImageProcessorTest, MissingAndNullFieldsAreTheOfficialEvaluation) {
  const auto expected = ImageFile("process/default-wide/expected.f32");
  for (const char* json :
       {"{}", R"({"size": null, "resample": null, "crop_size": null})",
        R"({"size": {"shortest_edge": 27}, "crop_size": 24, "resample": 3})",
        R"({"do_pad": false, "crop_pct": null, "unknown": {"a": [1]}})"}) {
    const auto processor = Open(json);
    ASSERT_TRUE(processor.ok()) << json << processor.status();
    const auto pixels = processor->Process(ImageFile("process/wide.png"));
    ASSERT_TRUE(pixels.ok()) << pixels.status();
    EXPECT_EQ(
        std::memcmp(pixels->values.data(), expected.data(), expected.size()), 0)
        << json;
  }
}

TEST_F(ImageProcessorTest, WrongFieldsAreNamedAllAtOnce) {
  const std::string invalid = "CONFIG_INVALID";
  ExpectWrong(R"({"do_resize": 1, "do_center_crop": "yes",
                  "do_rescale": [], "do_normalize": 0})",
              invalid,
              {"do_resize", "do_center_crop", "do_rescale", "do_normalize"});
  for (const char* size :
       {"0", "-1", "1.5", "\"24\"", "70000", "99999999999999999999", "[24, 24]",
        "{}", R"({"height": 24})", R"({"height": 24, "width": 0})",
        R"({"shortest_edge": true})",
        R"({"shortest_edge": 24, "longest_edge": 48})",
        R"({"shortest_edge": 24, "height": 24, "width": 24})"}) {
    ExpectWrong(absl::StrCat("{\"size\": ", size, "}"), invalid, {"size"});
  }
  ExpectWrong(R"({"crop_size": {"shortest_edge": 24}})", invalid,
              {"crop_size"});
  ExpectWrong(R"({"resample": 0})", invalid, {"resample"});
  ExpectWrong(R"({"resample": "bicubic"})", invalid, {"resample"});
  ExpectWrong(R"({"rescale_factor": 0})", invalid, {"rescale_factor"});
  ExpectWrong(R"({"rescale_factor": 1e300})", invalid, {"rescale_factor"});
  ExpectWrong(R"({"image_mean": [0.5, 0.5], "image_std": [1, 1, "1"]})",
              invalid, {"image_mean", "image_std"});
  ExpectWrong(R"({"image_mean": 0.5, "image_std": [1, 0, 1]})", invalid,
              {"image_mean", "image_std"});
  ExpectWrong(R"({"image_std": [1e-320, 1, 1]})", invalid, {"image_std"});
  ExpectWrong(R"({"do_pad": true, "do_flip_channel_order": true,
                  "crop_pct": 0.9})",
              invalid, {"do_pad", "do_flip_channel_order", "crop_pct"});
}

TEST_F(ImageProcessorTest, ResultMustHaveTheModelsSize) {
  const std::string invalid = "CONFIG_INVALID";
  ExpectWrong(R"({"crop_size": 23})", invalid, {"crop_size"});
  ExpectWrong(R"({"crop_size": {"height": 24, "width": 32}})", invalid,
              {"crop_size"});
  ExpectWrong(R"({"size": 32})", invalid, {"size"});
  ExpectWrong(R"({"size": {"height": 24, "width": 23}})", invalid, {"size"});
  // Known only with the picture.
  const auto processor = Open(R"({"do_resize": false,
                                  "do_center_crop": false})",
                              47, 61);
  ASSERT_TRUE(processor.ok()) << processor.status();
  EXPECT_TRUE(processor->Process(ImageFile("process/wide.png")).ok());
  ExpectRefused(processor->Process(ImageFile("process/tall.png")).status(),
                "33 x 52 pixels that becomes 33 x 52, must become 61 x 47");
}

TEST_F(ImageProcessorTest, DamagedFilesAreDataLoss) {
  for (const std::string& json :
       {std::string(), std::string("{"), std::string("[]"), std::string("3"),
        std::string("{}\0", 3), std::string(100'000, '['),
        "{\"a\": " + std::string(2 << 20, ' ') + "1}"}) {
    ExpectWrong(json, "CONFIG_DAMAGED", {});
  }
  // A folder in the place of the file.
  folder_.Remove("preprocessor_config.json");
  folder_.AddFile("preprocessor_config.json/x", "");
  const auto opened = ImageProcessor::Open(folder_.path(), 24, 24);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(GetErrorDetails(opened.status()).reason, "CONFIG_DAMAGED");
}

TEST_F(ImageProcessorTest, RefusesWhatTheDecoderRefuses) {
  const auto processor = Open("{}");
  ASSERT_TRUE(processor.ok()) << processor.status();
  ExpectRefused(processor->Process("").status(), "is empty");
  ExpectRefused(processor->Process(ImageFile("refuse/cmyk.jpg")).status(),
                "CMYK");
}

TEST_F(ImageProcessorTest, ThreadsShareOne) {
  const auto processor = Open("{}");
  ASSERT_TRUE(processor.ok()) << processor.status();
  const std::string picture = ImageFile("decode/jpg-progressive-420.jpg");
  const auto expected = processor->Process(picture);
  ASSERT_TRUE(expected.ok()) << expected.status();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        const auto pixels = processor->Process(picture);
        ASSERT_TRUE(pixels.ok()) << pixels.status();
        EXPECT_TRUE(pixels->values == expected->values);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace limpid
