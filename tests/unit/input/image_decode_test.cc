// SPDX-License-Identifier: Apache-2.0
#include "server/input/image_decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/input/image_files.h"

namespace limpid {
namespace {

constexpr size_t kPngHeaderEnd = 33;  // Signature and IHDR.

std::string BigEndian(uint32_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift & 0xff));
  }
  return out;
}

uint32_t ReadBigEndian(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = at; i < at + 4; ++i) {
    value = value << 8 | static_cast<uint8_t>(bytes.at(i));
  }
  return value;
}

std::string Chunk(const std::string& kind, const std::string& data) {
  const std::string body = kind + data;
  const auto crc =
      crc32(0, reinterpret_cast<const Bytef*>(body.data()), body.size());
  return BigEndian(data.size()) + body + BigEndian(crc);
}

std::string Deflated(const std::string& data) {
  uLongf size = compressBound(data.size());
  std::string out(size, '\0');
  EXPECT_EQ(compress(reinterpret_cast<Bytef*>(out.data()), &size,
                     reinterpret_cast<const Bytef*>(data.data()), data.size()),
            Z_OK);
  out.resize(size);
  return out;
}

// An RGB file of 8 bits whose compressed rows are given.
std::string Png(uint32_t width, uint32_t height, const std::string& idat,
                const std::string& before = "") {
  return "\x89PNG\r\n\x1a\n" +
         Chunk("IHDR", BigEndian(width) + BigEndian(height) +
                           std::string("\x08\x02\0\0\0", 5)) +
         before + Chunk("IDAT", idat) + Chunk("IEND", "");
}

// Makes a damaged PNG file's checksums right, so that the damage gets past
// them. Leaves what is no chunk alone.
std::string RepairChecksums(std::string png) {
  for (size_t at = 8; at + 12 <= png.size();) {
    const uint32_t size = ReadBigEndian(png, at);
    if (size > png.size() - at - 12) break;
    const std::string kind = png.substr(at + 4, 4);
    png.replace(at, size + 12, Chunk(kind, png.substr(at + 8, size)));
    at += size + 12;
  }
  return png;
}

// A JPEG file's frame header says this size.
std::string WithJpegSize(std::string jpeg, uint32_t width, uint32_t height) {
  size_t at = jpeg.find("\xff\xc0");
  if (at == std::string::npos) at = jpeg.find("\xff\xc2");
  const std::string size = BigEndian(height << 16 | width);
  return jpeg.replace(at + 5, 4, size);
}

// A progressive file with its last scan `times` times more.
std::string WithMoreScans(const std::string& jpeg, int times) {
  const size_t last = jpeg.rfind("\xff\xda");
  const size_t end = jpeg.size() - 2;
  std::string out = jpeg.substr(0, end);
  for (int i = 0; i < times; ++i) out += jpeg.substr(last, end - last);
  return out + "\xff\xd9";
}

// A zlib stream of `megabytes` MiB of zeros, made without holding them.
std::string Bomb(int megabytes) {
  std::vector<Bytef> zeros(1 << 20), out(1 << 16);
  std::string bomb;
  z_stream stream = {};
  EXPECT_EQ(deflateInit(&stream, 9), Z_OK);
  for (int i = 0; i <= megabytes; ++i) {
    stream.next_in = zeros.data();
    stream.avail_in = i < megabytes ? zeros.size() : 0;
    do {
      stream.next_out = out.data();
      stream.avail_out = out.size();
      deflate(&stream, i < megabytes ? Z_NO_FLUSH : Z_FINISH);
      bomb.append(out.begin(), out.end() - stream.avail_out);
    } while (stream.avail_out == 0);
  }
  deflateEnd(&stream);
  return bomb;
}

// By how much a call raises the memory of this process at its peak.
int64_t MemoryOf(const std::function<void()>& call) {
  const auto kilobytes = [](const std::string& name) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with(name)) return std::atoll(line.c_str() + name.size());
    }
    ADD_FAILURE() << "/proc/self/status has no " << name;
    return 0LL;
  };
  // Sets the peak back to what is held now.
  std::ofstream reset("/proc/self/clear_refs");
  reset << 5 << std::flush;
  EXPECT_TRUE(reset.good());
  const int64_t before = kilobytes("VmRSS:");
  call();
  return (kilobytes("VmHWM:") - before) * 1024;
}

// Whatever the bytes are: a picture or a typed error.
void ExpectPictureOrError(const std::string& bytes, const std::string& what) {
  const auto image = DecodeImage(bytes);
  if (!image.ok()) {
    SCOPED_TRACE(what);
    ExpectRefused(image.status(), "");
    return;
  }
  EXPECT_EQ(image->pixels.size(), size_t(3) * image->height * image->width)
      << what;
}

TEST(ImageDecodeTest, ReadsPngAsPillowDoes) {
  for (const std::string& name : ImageFiles("decode", ".png")) {
    const auto image = DecodeImage(ImageFile(name));
    ASSERT_TRUE(image.ok()) << name << image.status();
    const RgbImage expected = ReadPpm(name.substr(0, name.size() - 3) + "ppm");
    EXPECT_EQ(image->height, expected.height) << name;
    EXPECT_EQ(image->width, expected.width) << name;
    EXPECT_TRUE(image->pixels == expected.pixels) << name;
  }
}

TEST(ImageDecodeTest, ReadsJpegAsPillowDoes) {
  for (const std::string& name : ImageFiles("decode", ".jpg")) {
    const auto image = DecodeImage(ImageFile(name));
    ASSERT_TRUE(image.ok()) << name << image.status();
    const RgbImage expected = ReadPpm(name.substr(0, name.size() - 3) + "ppm");
    ASSERT_EQ(image->height, expected.height) << name;
    ASSERT_EQ(image->width, expected.width) << name;
    EXPECT_TRUE(image->pixels == expected.pixels) << name;
  }
}

TEST(ImageDecodeTest, RefusesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"16-bit-grey.png", "16 bits per channel"},
      {"16-bit-rgb.png", "16 bits per channel"},
      {"16-bit-grey-alpha.png", "16 bits per channel"},
      {"16-bit-rgba.png", "16 bits per channel"},
      {"animated.png", "animated"},
      {"cmyk.jpg", "CMYK"},
      {"one-pixel.png", "1 x 1 pixels, must have at least 2"},
      {"one-pixel.jpg", "1 x 1 pixels, must have at least 2"},
      {"other.gif", "is a GIF file, must be a PNG or JPEG file"},
      {"other.webp", "is a WebP file, must be a PNG or JPEG file"},
      {"other.bmp", "is a BMP file, must be a PNG or JPEG file"},
      {"other.tiff", "is a TIFF file, must be a PNG or JPEG file"},
      {"other.avif", "is an AVIF file, must be a PNG or JPEG file"},
  };
  for (const auto& [name, message] : cases) {
    SCOPED_TRACE(name);
    const std::string file = ImageFile(std::string("refuse/") + name);
    ExpectRefused(DecodeImage(file).status(), message);
  }
  ExpectRefused(DecodeImage("").status(), "is empty");
  ExpectRefused(DecodeImage("hello").status(),
                "is in no known format, must be a PNG or JPEG file");
}

TEST(ImageDecodeTest, IgnoresBytesBehindThePicture) {
  for (const char* name :
       {"decode/png-rgb.png", "decode/png-rgb-interlaced.png",
        "decode/jpg-baseline-420.jpg", "decode/jpg-progressive-420.jpg"}) {
    const std::string file = ImageFile(name);
    const auto plain = DecodeImage(file);
    const auto more = DecodeImage(file + std::string(1000, '\xa5') + file);
    ASSERT_TRUE(plain.ok() && more.ok()) << name << more.status();
    EXPECT_TRUE(plain->pixels == more->pixels) << name;
  }
}

TEST(ImageDecodeTest, EveryTruncationIsAnError) {
  for (const char* name :
       {"decode/png-rgb.png", "decode/png-palette-4-bit-interlaced.png",
        "decode/jpg-baseline-420.jpg", "decode/jpg-progressive-420.jpg",
        "decode/jpg-restarts.jpg"}) {
    const std::string file = ImageFile(name);
    for (size_t size = 0; size < file.size(); ++size) {
      SCOPED_TRACE(absl::StrCat(name, " cut to ", size));
      // A copy of its own, so that a sanitizer sees any read behind the end.
      const std::vector<char> cut(file.begin(), file.begin() + size);
      ExpectRefused(
          DecodeImage(absl::string_view(cut.data(), cut.size())).status(), "");
    }
  }
}

TEST(ImageDecodeTest, FlippedBitsAreAPictureOrAnError) {
  std::mt19937 random(20261123);
  for (const char* name :
       {"decode/png-rgb-filtered.png",
        "decode/png-palette-4-bit-interlaced.png",
        "decode/jpg-baseline-420.jpg", "decode/jpg-progressive-444.jpg",
        "decode/jpg-restarts.jpg"}) {
    const std::string file = ImageFile(name);
    const bool png = file[0] == '\x89';
    for (int round = 0; round < 1000; ++round) {
      std::string damaged = file;
      const int num_flips = 1 + random() % 4;
      for (int i = 0; i < num_flips; ++i) {
        damaged[random() % file.size()] ^= 1 << random() % 8;
      }
      const std::string what = absl::StrCat(name, " round ", round);
      ExpectPictureOrError(damaged, what);
      if (png) ExpectPictureOrError(RepairChecksums(damaged), what);
    }
  }
}

TEST(ImageDecodeTest, SizeIsRefusedBeforeMemoryIsTaken) {
  const std::string idat = Deflated("nothing of that size");
  const std::string jpeg = ImageFile("decode/jpg-baseline-420.jpg");
  const std::string progressive = ImageFile("decode/jpg-progressive-420.jpg");
  const std::string all = "pixels, must have at most 16777216 in all";
  const std::string side = "pixels, must have at most 65535 on a side";
  const std::pair<std::string, std::string> cases[] = {
      {Png(20000, 20000, idat), "20000 x 20000 " + all},
      {WithJpegSize(jpeg, 20000, 20000), "20000 x 20000 " + all},
      {WithJpegSize(progressive, 20000, 20000), "20000 x 20000 " + all},
      {WithJpegSize(jpeg, 65535, 65535), "damaged JPEG"},
      {Png(4097, 4096, idat), all},
      {Png(65536, 1, idat), side},
      {Png(1, 65536, idat), side},
      {Png(0x7fffffff, 0x7fffffff, idat), side},
      {Png(0xffffffff, 8, idat), "damaged PNG"},
      {Png(0, 8, idat), "damaged PNG"},
      {Png(8, 0, idat), "damaged PNG"},
      {WithJpegSize(jpeg, 0, 8), "damaged JPEG"},
      {WithJpegSize(jpeg, 8, 0), "damaged JPEG"},
  };
  for (const auto& [file, message] : cases) {
    SCOPED_TRACE(message);
    absl::Status status;
    EXPECT_LT(MemoryOf([&] { status = DecodeImage(file).status(); }), 4 << 20);
    ExpectRefused(status, message);
  }
}

TEST(ImageDecodeTest, SizeWithinLimitsThatTheDataDoesNotFillIsDamage) {
  const std::string row(1 + 3 * 64, '\0');
  ExpectRefused(
      DecodeImage(Png(64, 65, Deflated(std::string(64, '\0') + row))).status(),
      "damaged PNG");
  for (const char* name :
       {"decode/jpg-baseline-420.jpg", "decode/jpg-progressive-420.jpg",
        "decode/jpg-restarts.jpg", "decode/jpg-grey.jpg"}) {
    ExpectRefused(
        DecodeImage(WithJpegSize(ImageFile(name), 1000, 900)).status(),
        "damaged JPEG");
  }
}

TEST(ImageDecodeTest, LimitsAreTheCallers) {
  const std::string file = ImageFile("decode/png-rgb.png");  // 13 x 11
  EXPECT_TRUE(DecodeImage(file, {.max_pixels = 143}).ok());
  ExpectRefused(DecodeImage(file, {.max_pixels = 142}).status(), "142 in all");
  ExpectRefused(DecodeImage(file, {.max_side = 12}).status(), "12 on a side");
  ExpectRefused(DecodeImage(file, {.min_pixels = 144}).status(),
                "at least 144");
}

TEST(ImageDecodeTest, BombsCostNoMemory) {
  const std::string rows = Deflated(std::string(8 * (1 + 3 * 8), '\0'));
  // Below the 8 MB at which libpng itself would refuse to inflate a text.
  const std::string bomb = Bomb(7);
  const std::string named = std::string("bomb\0\0", 6) + bomb;
  const std::string text = std::string("bomb\0\1\0\0\0", 9) + bomb;
  const auto plain = DecodeImage(Png(8, 8, rows));
  ASSERT_TRUE(plain.ok()) << plain.status();
  // What goes beyond the last row, and what stands beside the picture.
  for (const std::string& file :
       {Png(8, 8, Bomb(64)), Png(8, 8, rows, Chunk("iCCP", named)),
        Png(8, 8, rows, Chunk("zTXt", named)),
        Png(8, 8, rows, Chunk("iTXt", text))}) {
    absl::StatusOr<RgbImage> image;
    EXPECT_LT(MemoryOf([&] { image = DecodeImage(file); }), 4 << 20);
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_TRUE(image->pixels == plain->pixels);
  }
}

TEST(ImageDecodeTest, ErrorsLeakNothing) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer holds on to what was freed";
#endif
  for (const char* name :
       {"decode/png-rgb-filtered.png", "decode/jpg-baseline-420.jpg",
        "decode/jpg-progressive-420.jpg"}) {
    const std::string file = ImageFile(name);
    const auto decode_often = [&file] {
      for (int i = 0; i < 1000; ++i) {
        EXPECT_FALSE(DecodeImage(file.substr(0, file.size() - 3)).ok());
        EXPECT_FALSE(DecodeImage(file, {.max_pixels = 9}).ok());
      }
    };
    EXPECT_LT(MemoryOf(decode_often), 4 << 20) << name;
  }
}

TEST(ImageDecodeTest, ScansOfAJpegAreLimited) {
  const std::string file = ImageFile("decode/jpg-progressive-420.jpg");
  EXPECT_TRUE(DecodeImage(WithMoreScans(file, 50)).ok());
  ExpectRefused(DecodeImage(WithMoreScans(file, 64)).status(),
                "too many scans");
  ExpectRefused(DecodeImage(WithMoreScans(file, 20000)).status(),
                "too many scans");
}

TEST(ImageDecodeTest, AnimationIsKnownByItsChunkBeforeTheData) {
  const std::string idat = Deflated(std::string(8 * (1 + 3 * 8), '\0'));
  const std::string actl = Chunk("acTL", BigEndian(1) + BigEndian(0));
  ExpectRefused(DecodeImage(Png(8, 8, idat, actl)).status(), "animated");
  // Behind the data it means nothing.
  std::string file = Png(8, 8, idat);
  file.insert(file.size() - 12, actl);
  EXPECT_TRUE(DecodeImage(file).ok());
}

TEST(ImageDecodeTest, MissingPartsAreDamage) {
  const std::string png = ImageFile("decode/png-rgb.png");
  ExpectRefused(
      DecodeImage(png.substr(0, kPngHeaderEnd) + Chunk("IEND", "")).status(),
      "damaged PNG");
  const std::string palette = ImageFile("decode/png-palette-8-bit.png");
  const size_t data = palette.find("IDAT") - 4;
  ExpectRefused(
      DecodeImage(palette.substr(0, kPngHeaderEnd) + palette.substr(data))
          .status(),
      "damaged PNG");
  ExpectRefused(DecodeImage("\xff\xd8\xff\xd9").status(), "damaged JPEG");
  const std::string jpeg = ImageFile("decode/jpg-baseline-420.jpg");
  const size_t scan = jpeg.find("\xff\xda");
  ExpectRefused(DecodeImage(jpeg.substr(0, scan) + "\xff\xd9").status(),
                "damaged JPEG");
  // All rows are there; the comment behind them is not.
  ExpectRefused(DecodeImage(jpeg.substr(0, jpeg.size() - 2) +
                            std::string("\xff\xfe\x01\0comment", 11))
                    .status(),
                "damaged JPEG");
}

}  // namespace
}  // namespace limpid
