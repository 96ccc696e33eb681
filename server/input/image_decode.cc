// SPDX-License-Identifier: Apache-2.0
#include "server/input/image_decode.h"

#include <png.h>

#include <csetjmp>
#include <cstddef>
// jpeglib.h needs FILE and does not include it.
#include <cstdio>
// clang-format off
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

absl::Status Refusal(absl::string_view what) {
  Violations violations;
  violations.Add("input.image", what);
  return violations.ToStatus("IMAGE_INVALID");
}

// Where the C libraries jump to when they give up, and why they did.
struct Escape {
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";

  [[noreturn]] void Leave(const char* why) {
    std::strncpy(message, why, sizeof(message) - 1);
    std::longjmp(jump, 1);
  }
};

// Runs calls of a C library; whether it did not give up. The jump runs no
// destructors: `body` must hold only plain data.
template <typename Body>
bool Completes(Escape& escape, const Body& body) {
  if (setjmp(escape.jump) != 0) return false;
  body();
  return true;
}

absl::Status CheckSize(int64_t height, int64_t width,
                       const ImageLimits& limits) {
  const auto refuse = [&](absl::string_view limit) {
    return Refusal(absl::StrCat("is a picture of ", width, " x ", height,
                                " pixels, must have ", limit));
  };
  if (height > limits.max_side || width > limits.max_side) {
    return refuse(absl::StrCat("at most ", limits.max_side, " on a side"));
  }
  if (height * width > limits.max_pixels) {
    return refuse(absl::StrCat("at most ", limits.max_pixels, " in all"));
  }
  if (height * width < limits.min_pixels) {
    return refuse(absl::StrCat("at least ", limits.min_pixels));
  }
  return absl::OkStatus();
}

RgbImage MakeImage(int64_t height, int64_t width) {
  return {height, width,
          std::vector<uint8_t>(static_cast<size_t>(height * width * 3))};
}

struct PngReader {
  Escape escape;
  absl::string_view rest;
  bool animated = false;
  png_structp png = nullptr;
  png_infop info = nullptr;

  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }

  static void OnError(png_structp png, png_const_charp why) {
    static_cast<PngReader*>(png_get_error_ptr(png))->escape.Leave(why);
  }
  static void OnWarning(png_structp, png_const_charp) {}
  static void OnRead(png_structp png, png_bytep out, size_t size) {
    absl::string_view& rest =
        static_cast<PngReader*>(png_get_io_ptr(png))->rest;
    if (size > rest.size()) png_error(png, "the file is cut short");
    std::memcpy(out, rest.data(), size);
    rest.remove_prefix(size);
  }
  // Sees the chunks that are not read, and has libpng drop them.
  static int OnChunk(png_structp png, png_unknown_chunkp chunk) {
    if (std::memcmp(chunk->name, "acTL", 4) == 0) {
      static_cast<PngReader*>(png_get_user_chunk_ptr(png))->animated = true;
    }
    return 1;
  }
};

absl::StatusOr<RgbImage> DecodePng(absl::string_view bytes,
                                   const ImageLimits& limits) {
  PngReader reader;
  reader.rest = bytes;
  const auto damaged = [&reader] {
    return Refusal(
        absl::StrCat("is a damaged PNG file: ", reader.escape.message));
  };
  bool complete = Completes(reader.escape, [&reader] {
    reader.png =
        png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader,
                               &PngReader::OnError, &PngReader::OnWarning);
    if (reader.png == nullptr) reader.escape.Leave("libpng can't start");
    reader.info = png_create_info_struct(reader.png);
    if (reader.info == nullptr) reader.escape.Leave("out of memory");
    png_set_read_fn(reader.png, &reader, &PngReader::OnRead);
    // Texts and profiles are of no use here and may be bombs.
    png_set_keep_unknown_chunks(reader.png, PNG_HANDLE_CHUNK_NEVER, nullptr,
                                -1);
    png_set_read_user_chunk_fn(reader.png, &reader, &PngReader::OnChunk);
    // The size is checked below, by a check that says what is allowed.
    png_set_user_limits(reader.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_read_info(reader.png, reader.info);
  });
  if (!complete) return damaged();

  const int64_t height = png_get_image_height(reader.png, reader.info);
  const int64_t width = png_get_image_width(reader.png, reader.info);
  if (absl::Status status = CheckSize(height, width, limits); !status.ok()) {
    return status;
  }
  if (reader.animated) {
    return Refusal("is an animated PNG file, must be a single picture");
  }
  if (png_get_bit_depth(reader.png, reader.info) == 16) {
    return Refusal(
        "is a PNG file with 16 bits per channel, must have 8 or fewer");
  }

  RgbImage image = MakeImage(height, width);
  uint8_t* const pixels = image.pixels.data();
  complete = Completes(reader.escape, [&reader, pixels, height, width] {
    png_set_expand(reader.png);
    png_set_gray_to_rgb(reader.png);
    png_set_strip_alpha(reader.png);
    const int num_passes = png_set_interlace_handling(reader.png);
    png_read_update_info(reader.png, reader.info);
    const size_t stride = static_cast<size_t>(width) * 3;
    if (png_get_rowbytes(reader.png, reader.info) != stride) {
      reader.escape.Leave("its rows are not RGB");
    }
    for (int pass = 0; pass < num_passes; ++pass) {
      for (int64_t y = 0; y < height; ++y) {
        png_read_row(reader.png, pixels + y * stride, nullptr);
      }
    }
    png_read_end(reader.png, nullptr);
  });
  if (!complete) return damaged();
  return image;
}

struct JpegReader {
  Escape escape;
  int max_scans = 0;
  jpeg_error_mgr errors = {};
  jpeg_progress_mgr progress = {};
  jpeg_decompress_struct state = {};

  ~JpegReader() { jpeg_destroy_decompress(&state); }

  static void OnError(j_common_ptr state) {
    char message[JMSG_LENGTH_MAX];
    state->err->format_message(state, message);
    static_cast<JpegReader*>(state->client_data)->escape.Leave(message);
  }
  // libjpeg fills what is missing with grey and warns; an explanation must not
  // speak of pixels that nobody sent.
  static void OnMessage(j_common_ptr state, int level) {
    const int code = state->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) {
      OnError(state);
    }
  }
  static void OnOutput(j_common_ptr) {}
  static void OnProgress(j_common_ptr state) {
    auto* const reader = static_cast<JpegReader*>(state->client_data);
    if (reader->state.input_scan_number > reader->max_scans) {
      reader->escape.Leave("too many scans");
    }
  }
};

absl::StatusOr<RgbImage> DecodeJpeg(absl::string_view bytes,
                                    const ImageLimits& limits) {
  JpegReader reader;
  const auto damaged = [&reader] {
    return Refusal(
        absl::StrCat("is a damaged JPEG file: ", reader.escape.message));
  };
  reader.max_scans = limits.max_scans;
  jpeg_decompress_struct* const state = &reader.state;
  state->client_data = &reader;
  state->err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = &JpegReader::OnError;
  reader.errors.emit_message = &JpegReader::OnMessage;
  reader.errors.output_message = &JpegReader::OnOutput;
  reader.progress.progress_monitor = &JpegReader::OnProgress;
  bool complete = Completes(reader.escape, [&reader, state, bytes] {
    jpeg_create_decompress(state);
    state->progress = &reader.progress;
    jpeg_mem_src(state, reinterpret_cast<const unsigned char*>(bytes.data()),
                 bytes.size());
    jpeg_read_header(state, TRUE);
  });
  if (!complete) return damaged();

  const int64_t height = state->image_height;
  const int64_t width = state->image_width;
  if (absl::Status status = CheckSize(height, width, limits); !status.ok()) {
    return status;
  }
  if (state->num_components != 1 && state->num_components != 3) {
    const bool cmyk = state->num_components == 4;
    return Refusal(absl::StrCat("is a ", cmyk ? "CMYK " : "", "JPEG file with ",
                                state->num_components,
                                " channels, must be grey or RGB"));
  }

  RgbImage image = MakeImage(height, width);
  uint8_t* const pixels = image.pixels.data();
  complete = Completes(reader.escape, [state, pixels, width] {
    state->out_color_space = JCS_RGB;
    jpeg_start_decompress(state);
    while (state->output_scanline < state->output_height) {
      JSAMPROW row = pixels + size_t{3} * width * state->output_scanline;
      jpeg_read_scanlines(state, &row, 1);
    }
    jpeg_finish_decompress(state);
  });
  if (!complete) return damaged();
  return image;
}

// Formats that people send by mistake.
absl::string_view OtherFormat(absl::string_view bytes) {
  const absl::string_view brand = bytes.substr(0, 12);
  if (absl::StartsWith(bytes, "GIF8")) return "a GIF file";
  if (absl::StartsWith(bytes, "RIFF") && absl::EndsWith(brand, "WEBP")) {
    return "a WebP file";
  }
  if (absl::StartsWith(bytes, "BM")) return "a BMP file";
  if (absl::StartsWith(bytes, absl::string_view("II*\0", 4)) ||
      absl::StartsWith(bytes, absl::string_view("MM\0*", 4))) {
    return "a TIFF file";
  }
  if (absl::EndsWith(brand, "ftypavif")) return "an AVIF file";
  if (absl::EndsWith(brand, "ftypheic")) return "a HEIC file";
  return "in no known format";
}

}  // namespace

absl::StatusOr<RgbImage> DecodeImage(absl::string_view bytes,
                                     const ImageLimits& limits) {
  if (absl::StartsWith(bytes, "\x89PNG\r\n\x1a\n")) {
    return DecodePng(bytes, limits);
  }
  if (absl::StartsWith(bytes, "\xff\xd8\xff")) {
    return DecodeJpeg(bytes, limits);
  }
  if (bytes.empty()) return Refusal("is empty, must be a PNG or JPEG file");
  return Refusal(
      absl::StrCat("is ", OtherFormat(bytes), ", must be a PNG or JPEG file"));
}

}  // namespace limpid
