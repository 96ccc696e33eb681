// SPDX-License-Identifier: Apache-2.0
//
// A picture of any bytes is refused, or has as many pixels as it says, within
// the limits.
#include "server/base/status.h"
#include "server/input/image_decode.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  limpid::ImageLimits limits;
  limits.max_pixels = 1 << 16;
  limits.max_scans = 16;
  const auto image =
      limpid::DecodeImage({reinterpret_cast<const char*>(data), size}, limits);
  if (!image.ok()) {
    LIMPID_FUZZ_CHECK(absl::IsInvalidArgument(image.status()));
    return 0;
  }
  const int64_t num_pixels = image->height * image->width;
  LIMPID_FUZZ_CHECK(num_pixels >= limits.min_pixels &&
                    num_pixels <= limits.max_pixels);
  LIMPID_FUZZ_CHECK(std::ssize(image->pixels) == 3 * num_pixels);
  return 0;
}
