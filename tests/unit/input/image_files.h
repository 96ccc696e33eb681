// SPDX-License-Identifier: Apache-2.0
//
// What the tests of pictures share: the files of tests/golden/images and what
// an error about a picture must look like.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/mapped_file.h"
#include "server/base/status.h"
#include "server/input/image_decode.h"

namespace limpid {

inline std::string ImagesFolder() {
  return std::string(LIMPID_TEST_DATA) + "/images/";
}

inline std::string ImageFile(const std::string& name) {
  const auto bytes = ReadFile(ImagesFolder() + name, 1 << 20);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return bytes.ok() ? *bytes : "";
}

// Paths below tests/golden/images of the files in a folder that end so; none is
// a failure.
inline std::vector<std::string> ImageFiles(const std::string& folder,
                                           const std::string& ending) {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(ImagesFolder() + folder)) {
    const std::string name = entry.path().filename();
    if (name.ends_with(ending)) names.push_back(folder + "/" + name);
  }
  EXPECT_FALSE(names.empty()) << folder << "/*" << ending;
  std::sort(names.begin(), names.end());
  return names;
}

// A binary PPM file as Pillow writes it.
inline RgbImage ReadPpm(const std::string& name) {
  const std::string bytes = ImageFile(name);
  int width = 0, height = 0, start = 0;
  const int found =
      std::sscanf(bytes.c_str(), "P6\n%d %d\n255%n", &width, &height, &start);
  RgbImage image{height, width, {}};
  if (found == 2 && start > 0) {
    image.pixels.assign(bytes.begin() + start + 1, bytes.end());
  }
  EXPECT_EQ(image.pixels.size(), size_t{3} * width * height) << name;
  return image;
}

// Every refused picture is INVALID_ARGUMENT at the field, with a message of
// bounded length.
inline void ExpectRefused(const absl::Status& status,
                          const std::string& message_part) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "IMAGE_INVALID");
  ASSERT_EQ(details.violations.size(), 1u);
  EXPECT_EQ(details.violations[0].field, "input.image");
  EXPECT_THAT(details.violations[0].description,
              ::testing::HasSubstr(message_part));
  EXPECT_LT(status.message().size(), 300u);
}

}  // namespace limpid
