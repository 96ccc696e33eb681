// SPDX-License-Identifier: Apache-2.0
#include "server/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

namespace limpid {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "limpid-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ + "/t.safetensors";
  }
  void TearDown() override { fs::remove_all(folder_); }

  void WriteBytes(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }
  std::string ReadBytes() { return *ReadFile(path_, 1 << 20); }
  // A file of a header and as many data bytes.
  static std::string File(const std::string& header, size_t data_bytes) {
    std::string out;
    for (int i = 0; i < 8; ++i) {
      out.push_back(static_cast<char>(uint64_t{header.size()} >> (8 * i)));
    }
    return out + header + std::string(data_bytes, 'd');
  }
  absl::Status OpenBytes(const std::string& bytes) {
    WriteBytes(bytes);
    return SafetensorsFile::Open(path_).status();
  }
  void ExpectDamaged(const std::string& bytes, const std::string& what,
                     const std::string& tensor = "") {
    const absl::Status status = OpenBytes(bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
    const ErrorDetails details = GetErrorDetails(status);
    EXPECT_EQ(details.reason, "CHECKPOINT_DAMAGED");
    EXPECT_EQ(details.metadata.at("file"), path_);
    EXPECT_EQ(details.metadata.count("tensor"), tensor.empty() ? 0u : 1u);
    if (!tensor.empty() && details.metadata.count("tensor") > 0) {
      EXPECT_EQ(details.metadata.at("tensor"), tensor);
    }
  }
  void ExpectDamagedHeader(const std::string& header, const std::string& what,
                           const std::string& tensor = "") {
    ExpectDamaged(File(header, 16), what, tensor);
  }

  std::string folder_, path_;
};

template <typename T>
std::span<const std::byte> Bytes(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}

constexpr char kGood[] =
    R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[8,16]}})";

TEST_F(SafetensorsTest, ReadsWhatItWrote) {
  const std::vector<float> floats = {1, -2.5, 3, 0, 7, 9};
  const std::vector<int64_t> ints = {-1, 1LL << 40};
  const std::vector<uint8_t> odd = {1, 2, 3};
  const std::map<std::string, TensorView> tensors = {
      {"z", {DType::kFloat32, {2, 3}, Bytes(floats)}},
      {"a.\"quoted\" \xc3\xa9", {DType::kInt64, {2}, Bytes(ints)}},
      {"bytes", {DType::kUint8, {3, 1}, Bytes(odd)}},
      {"empty", {DType::kFloat16, {4, 0, 2}, {}}},
      {"scalar", {DType::kBool, {}, Bytes(odd).first(1)}}};
  ASSERT_TRUE(
      WriteSafetensors(path_, tensors, {{"format", "pt"}, {"n", ""}}).ok());

  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors().size(), tensors.size());
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->metadata().size(), 2u);
  for (const auto& [name, view] : tensors) {
    const TensorView& back = file->tensors().at(name);
    EXPECT_EQ(back.dtype, view.dtype) << name;
    EXPECT_EQ(back.shape, view.shape) << name;
    ASSERT_EQ(back.data.size(), view.data.size()) << name;
    EXPECT_TRUE(
        std::equal(back.data.begin(), back.data.end(), view.data.begin()))
        << name;
  }
  EXPECT_EQ(file->tensors().at("empty").num_elements(), 0);
  EXPECT_EQ(file->tensors().at("scalar").num_elements(), 1);
  // Data begin aligned, in the order of names; no other file is left.
  const std::string bytes = ReadBytes();
  EXPECT_EQ(static_cast<unsigned char>(bytes[0]) % 8, 0);
  EXPECT_LT(bytes.find("quoted"), bytes.find("\"z\""));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST_F(SafetensorsTest, WritesWithoutTensors) {
  ASSERT_TRUE(WriteSafetensors(path_, {}, {}).ok());
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->tensors().empty());
}

TEST_F(SafetensorsTest, WriterRefusesWhatCanNotBeRead) {
  const std::vector<float> data = {1, 2};
  const auto write = [&](const std::string& name, std::vector<int64_t> shape) {
    return WriteSafetensors(
        path_, {{name, {DType::kFloat32, std::move(shape), Bytes(data)}}}, {});
  };
  EXPECT_TRUE(absl::IsInvalidArgument(write("a", {3})));
  EXPECT_TRUE(absl::IsInvalidArgument(write("a", {-2, -1})));
  EXPECT_TRUE(absl::IsInvalidArgument(write("a", {1LL << 62, 4})));
  EXPECT_TRUE(absl::IsInvalidArgument(write("__metadata__", {2})));
  EXPECT_TRUE(absl::IsInvalidArgument(write("\xff", {2})));
  EXPECT_FALSE(fs::exists(path_));
  EXPECT_TRUE(write("a", {2}).ok());
}

TEST_F(SafetensorsTest, WriterNamesThePathItCanNotWrite) {
  const absl::Status status =
      WriteSafetensors(folder_ + "/none/x.safetensors", {}, {});
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/none/x.safetensors"));
  // The target is a folder: nothing half-written stays.
  fs::create_directory(path_);
  EXPECT_FALSE(WriteSafetensors(path_, {}, {}).ok());
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST_F(SafetensorsTest, AcceptsTheGoodHeader) {
  EXPECT_TRUE(OpenBytes(File(kGood, 16)).ok());
  EXPECT_TRUE(OpenBytes(File(std::string(kGood) + "   ", 16)).ok());
  EXPECT_TRUE(OpenBytes(File("{}", 0)).ok());
}

TEST_F(SafetensorsTest, MissingFileIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(SafetensorsFile::Open(path_).status()));
}

TEST_F(SafetensorsTest, RefusesBadLengths) {
  ExpectDamaged("", "too short");
  ExpectDamaged("1234567", "too short");
  ExpectDamaged(std::string(8, '\0'), "does not start");
  ExpectDamaged(std::string("\x03\0\0\0\0\0\0\0{}", 10), "longer than");
  ExpectDamaged(std::string(8, '\xff') + "{}", "at most 100000000");
  const std::string whole = File(kGood, 16);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(OpenBytes(whole.substr(0, size)))) << size;
  }
  ExpectDamaged(whole + "x", "belong to none");
}

TEST_F(SafetensorsTest, RefusesWhatIsNotJson) {
  for (const std::string header :
       {"[]", " {}", "null", "\xef\xbb\xbf{}", "{", "{}}", "{,}",
        "{\"\xff\":{}}", "{'a':1}", "{}x"}) {
    SCOPED_TRACE(header);
    ExpectDamaged(File(header, 0), "header");
  }
  ExpectDamaged(File("{\"a\":}", 0), "not UTF-8 JSON", "a");
  ExpectDamaged(File("{\"a\":NaN}", 0), "not UTF-8 JSON", "a");
  using std::string_literals::operator""s;
  ExpectDamaged(File("{}\0"s, 0), "NUL");
  ExpectDamaged(File("{\"a\0\":{}}"s, 0), "NUL");
}

TEST_F(SafetensorsTest, RefusesNestingBombs) {
  const size_t depth = 1'000'000;
  ExpectDamagedHeader("{\"a\":" + std::string(depth, '['), "instead of", "a");
  std::string objects;
  for (size_t i = 0; i < depth; ++i) objects += "{\"a\":";
  ExpectDamagedHeader(objects, "unknown key", "a");
  ExpectDamagedHeader(
      R"({"a":{"dtype":"F32","shape":)" + std::string(depth, '['), "holds",
      "a");
}

TEST_F(SafetensorsTest, RefusesDuplicates) {
  const std::string a =
      R"("a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]})";
  const std::string twice =
      R"("\u0061":{"dtype":"U8","shape":[8],"data_offsets":[8,16]})";
  ExpectDamagedHeader("{" + a + "," + twice + "}", "twice", "a");
  ExpectDamagedHeader(R"({"__metadata__":{},"__metadata__":{}})", "twice");
  ExpectDamagedHeader(R"({"__metadata__":{"k":"1","k":"2"}})", "twice");
  ExpectDamagedHeader(R"({"a":{"dtype":"U8","dtype":"U8"}})", "twice", "a");
}

TEST_F(SafetensorsTest, RefusesBadDescriptions) {
  ExpectDamagedHeader(R"({"a":1})", "instead of an object", "a");
  ExpectDamagedHeader(R"({"a":null})", "instead of an object", "a");
  ExpectDamagedHeader(R"({"a":{}})", "\\\"dtype\\\" is missing", "a");
  ExpectDamagedHeader(R"({"a":{"dtype":"F32"}})", "shape", "a");
  ExpectDamagedHeader(R"({"a":{"dtype":"F32","shape":[4]}})", "data_offsets",
                      "a");
  ExpectDamagedHeader(R"({"a":{"dtype":"F99"}})", "unknown dtype", "a");
  ExpectDamagedHeader(R"({"a":{"dtype":"f32"}})", "unknown dtype", "a");
  ExpectDamagedHeader(R"({"a":{"dtype":7}})", "a number", "a");
  ExpectDamagedHeader(R"({"a":{"dtype":["F32"]}})", "an array", "a");
  ExpectDamagedHeader(R"({"a":{"shape":"4"}})", "a string", "a");
  ExpectDamagedHeader(R"({"a":{"shape":[[4]]}})", "an array", "a");
  ExpectDamagedHeader(R"({"a":{"shape":[-4]}})", "negative", "a");
  ExpectDamagedHeader(R"({"a":{"shape":[4.0]}})", "not an integer", "a");
  ExpectDamagedHeader(R"({"a":{"shape":[1e400]}})", "JSON", "a");
  ExpectDamagedHeader(R"({"a":{"shape":[18446744073709551615]}})", "too large",
                      "a");
  ExpectDamagedHeader(R"({"a":{"shape":[true]}})", "truth value", "a");
  ExpectDamagedHeader(R"({"a":{"data_offsets":[0]}})", "pair", "a");
  ExpectDamagedHeader(R"({"a":{"data_offsets":[0,1,2]}})", "pair", "a");
  ExpectDamagedHeader(R"({"a":{"stride":[1]}})", "unknown key", "a");
  ExpectDamagedHeader(R"({"__metadata__":{"k":1}})", "instead of a string");
  ExpectDamagedHeader(R"({"__metadata__":[]})", "instead of an object");
  std::string many = "1";
  for (int i = 0; i < 64; ++i) many += ",1";
  ExpectDamagedHeader(R"({"a":{"shape":[)" + many + "]}}", "more than 64", "a");
}

std::string One(const std::string& shape, const std::string& offsets) {
  return R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" +
         offsets + "}}";
}

TEST_F(SafetensorsTest, RefusesShapesThatDoNotFit) {
  EXPECT_TRUE(OpenBytes(File(One("[4]", "[0,16]"), 16)).ok());
  ExpectDamagedHeader(One("[3]", "[0,16]"), "needs 12 bytes", "a");
  ExpectDamagedHeader(One("[4]", "[16,0]"), "before they begin", "a");
  ExpectDamagedHeader(One("[5]", "[0,20]"), "cut short", "a");
  ExpectDamagedHeader(One("[4611686018427387904]", "[0,0]"), "too large", "a");
  ExpectDamagedHeader(One("[4294967296,4294967296]", "[0,0]"), "too large",
                      "a");
  ExpectDamagedHeader(
      One("[9223372036854775807,9223372036854775807,0]", "[0,0]"), "too large",
      "a");
}

std::string Two(const std::string& a, const std::string& b) {
  return R"({"a":{"dtype":"U8","shape":[8],"data_offsets":)" + a +
         R"(},"b":{"dtype":"U8","shape":[8],"data_offsets":)" + b + "}}";
}

TEST_F(SafetensorsTest, RefusesOverlapsAndHoles) {
  EXPECT_TRUE(OpenBytes(File(Two("[8,16]", "[0,8]"), 16)).ok());
  ExpectDamaged(File(Two("[0,8]", "[0,8]"), 8), "overlap", "b");
  ExpectDamaged(File(Two("[4,12]", "[0,8]"), 12), "overlap", "a");
  ExpectDamaged(File(Two("[0,8]", "[9,17]"), 17), "hole of 1 bytes", "b");
  ExpectDamaged(File(Two("[1,9]", "[9,17]"), 17), "hole of 1 bytes", "a");
  ExpectDamaged(File(Two("[0,8]", "[8,16]"), 17), "1 bytes behind the last");
  ExpectDamaged(File("{}", 3), "3 bytes behind");
}

TEST_F(SafetensorsTest, ZeroSizeTensorsMayShareAPlace) {
  EXPECT_TRUE(OpenBytes(File(One("[0]", "[0,0]"), 0)).ok());
  EXPECT_TRUE(
      OpenBytes(
          File(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
               R"("b":{"dtype":"U8","shape":[0,9],"data_offsets":[8,8]},)"
               R"("c":{"dtype":"U8","shape":[9,0],"data_offsets":[0,0]}})",
               8))
          .ok());
  ExpectDamaged(File(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
                     R"("b":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
                     8),
                "overlap", "b");
}

TEST_F(SafetensorsTest, LongNamesAreCutInMessages) {
  const absl::Status status =
      OpenBytes(File("{\"" + std::string(100'000, 'n') + "\":1}", 0));
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_LT(status.message().size(), 1000u);
}

// Whatever happens to the bytes, the file opens or is damaged, and every byte
// of every view can be read.
TEST_F(SafetensorsTest, MutationsNeverCrash) {
  const std::string good = File(kGood, 16);
  std::mt19937 random(20240517);
  const auto below = [&](size_t limit) { return random() % limit; };
  const std::string spice = "{}[]\",:\\0123456789-.eE tfnu\xff\x80";
  int opened = 0, damaged = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (size_t edits = 1 + below(3); edits > 0 && !bytes.empty(); --edits) {
      const size_t at = below(bytes.size());
      const size_t size = below(bytes.size() - at + 1) % 40;
      switch (below(7)) {
        case 0:
          bytes[at] ^= static_cast<char>(1 << below(8));
          break;
        case 1:
          bytes[at] = spice[below(spice.size())];
          break;
        case 2:
          bytes.resize(at);
          break;
        case 3:
          bytes.erase(at, size);
          break;
        case 4:
          bytes.insert(below(bytes.size()), bytes.substr(at, size));
          break;
        case 5:
          bytes.insert(at, size, spice[below(spice.size())]);
          break;
        default:
          // Header edits that keep the length honest get further.
          if (bytes.size() > 8) {
            bytes.insert(8 + below(bytes.size() - 8), 1,
                         spice[below(spice.size())]);
            ++bytes[0];
          }
      }
    }
    WriteBytes(bytes);
    const auto file = SafetensorsFile::Open(path_);
    if (!file.ok()) {
      ++damaged;
      ASSERT_TRUE(absl::IsDataLoss(file.status())) << file.status();
      ASSERT_EQ(GetErrorDetails(file.status()).reason, "CHECKPOINT_DAMAGED");
      continue;
    }
    ++opened;
    unsigned sum = 0;
    for (const auto& [name, view] : file->tensors()) {
      ASSERT_EQ(
          view.data.size(),
          static_cast<size_t>(view.num_elements() * ElementBytes(view.dtype)));
      for (const std::byte b : view.data) sum += std::to_integer<unsigned>(b);
    }
    EXPECT_LE(sum, 255u * bytes.size());
  }
  // Both ways were taken.
  EXPECT_GT(opened, 50);
  EXPECT_GT(damaged, 1500);
}

}  // namespace
}  // namespace limpid
