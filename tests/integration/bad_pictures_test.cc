// SPDX-License-Identifier: Apache-2.0
//
// Pictures that must be refused, sent to a running server: it names what is
// wrong, allocates nothing for a lying header, and goes on serving.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "tests/support/process.h"

namespace limpid {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::Process;
using testing::ProcessResult;
using testing::RunProcess;

const fs::path kImages = fs::path(LIMPID_TEST_DATA) / "images";

std::string Read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void PutBigEndian(std::string& bytes, size_t at, uint32_t value, int size) {
  for (int i = 0; i < size; ++i) {
    bytes[at + i] = static_cast<char>(value >> 8 * (size - 1 - i));
  }
}

// The picture with another size in its header, and nothing behind to fill it.
std::string PngOfSize(std::string bytes, uint32_t size) {
  constexpr size_t kType = 12, kLength = 17;  // "IHDR" and its 13 bytes
  PutBigEndian(bytes, 16, size, 4);
  PutBigEndian(bytes, 20, size, 4);
  const auto* const header =
      reinterpret_cast<const unsigned char*>(bytes.data()) + kType;
  PutBigEndian(bytes, kType + kLength,
               static_cast<uint32_t>(crc32(0, header, kLength)), 4);
  return bytes;
}
std::string JpegOfSize(std::string bytes, uint32_t size) {
  const size_t frame = bytes.find("\xff\xc0");
  EXPECT_NE(frame, std::string::npos);
  PutBigEndian(bytes, frame + 5, size, 2);
  PutBigEndian(bytes, frame + 7, size, 2);
  return bytes;
}

class BadPicturesTest : public ::testing::Test {
 protected:
  BadPicturesTest() {
    std::string pattern = ::testing::TempDir() + "/limpid-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    fs::create_directory(folder_ / "models");
    fs::create_directory_symlink(
        fs::path(LIMPID_TEST_DATA) / "checkpoints" / "vim-odd-grid",
        folder_ / "models" / "vim");
    server_ = std::make_unique<Process>(std::vector<std::string>{
        std::string(LIMPID_BIN_DIR) + "/limpid-server", "--model-repository",
        (folder_ / "models").string(), "--listen", "127.0.0.1:0", "--metrics",
        "off", "--device", "cpu"});
    const std::string line = server_->ReadLine(std::chrono::seconds(60));
    address_ = line.substr(line.rfind(' ') + 1);
  }
  ~BadPicturesTest() override {
    server_.reset();
    fs::remove_all(folder_);
  }

  ProcessResult Explain(const fs::path& picture) const {
    return RunProcess({std::string(LIMPID_BIN_DIR) + "/limpid", "--server",
                       address_, "explain", "--model", "vim", "--image",
                       picture.string(), "--json"});
  }
  ProcessResult Explain(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return Explain(folder_ / name);
  }
  static void ExpectRefused(const ProcessResult& result,
                            const std::string& what) {
    EXPECT_EQ(result.exit_status, 1) << what;
    EXPECT_THAT(result.errors, HasSubstr("INVALID_ARGUMENT"));
    EXPECT_THAT(result.errors, HasSubstr("input.image"));
    EXPECT_THAT(result.errors, HasSubstr(what));
  }
  void ExpectServes() const {
    const ProcessResult good = Explain(kImages / "process" / "wide.png");
    EXPECT_EQ(good.exit_status, 0) << good.errors;
  }
  // The most memory that the server ever had, in bytes.
  int64_t PeakBytes() const {
    std::ifstream status("/proc/" + std::to_string(server_->pid()) + "/status");
    for (std::string word; status >> word;) {
      if (word != "VmHWM:") continue;
      int64_t kib = 0;
      status >> kib;
      return kib * 1024;
    }
    ADD_FAILURE() << "the kernel does not tell";
    return 0;
  }

  fs::path folder_;
  std::unique_ptr<Process> server_;
  std::string address_;
};

TEST_F(BadPicturesTest, AreRefusedByNameWithinMemory) {
  ExpectServes();
  const int64_t before = PeakBytes();
  const fs::path refuse = kImages / "refuse";
  ExpectRefused(Explain(refuse / "one-pixel.png"), "1 x 1 pixels");
  ExpectRefused(Explain(refuse / "one-pixel.jpg"), "1 x 1 pixels");
  ExpectRefused(Explain(refuse / "cmyk.jpg"), "CMYK");
  ExpectRefused(Explain(refuse / "16-bit-rgb.png"), "16 bits");
  ExpectRefused(Explain(refuse / "16-bit-grey.png"), "16 bits");
  ExpectRefused(Explain(refuse / "animated.png"), "animated");
  ExpectRefused(Explain(refuse / "other.gif"), "PNG or JPEG");

  const std::string png = Read(kImages / "decode" / "png-rgb.png");
  const std::string jpeg = Read(kImages / "decode" / "jpg-baseline-444.jpg");
  ExpectRefused(Explain("lies.png", PngOfSize(png, 20000)), "20000 x 20000");
  ExpectRefused(Explain("lies.jpg", JpegOfSize(jpeg, 20000)), "20000 x 20000");
  // Small enough to be believed, and then not there.
  ExpectRefused(Explain("short.png", PngOfSize(png, 4000)), "PNG");
  ExpectRefused(Explain("short.jpg", JpegOfSize(jpeg, 4000)), "JPEG");
  for (const size_t part : {size_t{3}, size_t{20}, png.size() / 2}) {
    ExpectRefused(Explain("cut.png", png.substr(0, part)), "");
  }
  for (const size_t part : {size_t{3}, size_t{20}, jpeg.size() / 2}) {
    ExpectRefused(Explain("cut.jpg", jpeg.substr(0, part)), "");
  }
  ExpectRefused(Explain("empty.png", ""), "empty");
  ExpectServes();
  // A picture of the largest size that is decoded has 3 bytes a pixel; one of
  // 20,000 x 20,000 would have 1.2e9.
  constexpr int64_t kAllowed = int64_t{96} << 20;
  EXPECT_LE(PeakBytes() - before, kAllowed);
  std::printf("figure: bad pictures: server's peak grew by %.1f MiB\n",
              static_cast<double>(PeakBytes() - before) / (1 << 20));
}

}  // namespace
}  // namespace limpid
