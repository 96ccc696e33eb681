// SPDX-License-Identifier: Apache-2.0
//
// Replies are put together only from parts that fit.
#include "client/decode.h"

#include <string>
#include <vector>

#include "client/error_report.h"
#include "gtest/gtest.h"
#include "tests/support/fake_explanation_service.h"

namespace limpid {
namespace {

using testing::MakeResponse;
using testing::MakeStream;
using testing::MakeTensor;
using Parts = std::vector<v1::StreamExplainResponse>;

absl::StatusOr<Explanation> Assemble(const Parts& parts,
                                     const DecodeLimits& limits = {},
                                     const StreamObserver& observer = {}) {
  StreamAssembler assembler(observer, limits);
  for (const auto& part : parts) {
    if (absl::Status s = assembler.Add(part); !s.ok()) return s;
  }
  return assembler.Finish();
}

void ExpectDamaged(const absl::StatusOr<Explanation>& result) {
  EXPECT_TRUE(absl::IsDataLoss(result.status())) << result.status();
  EXPECT_FALSE(GetErrorReport(result.status()).reason.empty());
}

// Index of the first part of a kind.
size_t Find(const Parts& parts, v1::StreamExplainResponse::PartCase kind) {
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].part_case() == kind) return i;
  }
  return parts.size();
}

constexpr auto kChunk = v1::StreamExplainResponse::kChunk;
constexpr auto kTensor = v1::StreamExplainResponse::kTensor;

TEST(StreamAssemblerTest, PutsPartsTogether) {
  const v1::ExplainResponse response = MakeResponse();
  for (const size_t chunk_bytes : {1, 5, 1000}) {
    const auto result = Assemble(MakeStream(response, chunk_bytes));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->header.model(), "sentiment-mamba");
    EXPECT_EQ(result->tensors.size(), 3u);
    EXPECT_EQ(result->tensors.at("attribution").data(),
              response.tensors(0).data());
    EXPECT_EQ(result->summary.target().token_id(), 42);
  }
}

TEST(StreamAssemblerTest, TellsPartsAsTheyCome) {
  std::string heard;
  StreamObserver observer;
  observer.on_header = [&](const auto&) { heard += "h"; };
  observer.on_progress = [&](const auto&) { heard += "p"; };
  observer.on_tensor = [&](const v1::Tensor& tensor) {
    EXPECT_TRUE(CheckTensor(tensor).ok());
    heard += "t";
  };
  ASSERT_TRUE(Assemble(MakeStream(MakeResponse(), 4), {}, observer).ok());
  EXPECT_EQ(heard, "hpttt");
}

TEST(StreamAssemblerTest, RefusesAStreamWithoutSummary) {
  Parts parts = MakeStream(MakeResponse(), 8);
  parts.pop_back();
  ExpectDamaged(Assemble(parts));
  ExpectDamaged(Assemble({}));
}

TEST(StreamAssemblerTest, RefusesPartsAroundHeaderAndSummary) {
  Parts parts = MakeStream(MakeResponse(), 8);
  Parts twice = parts;
  twice.insert(twice.begin(), parts.front());
  ExpectDamaged(Assemble(twice));
  Parts after = parts;
  after.push_back(parts[1]);
  ExpectDamaged(Assemble(after));
  parts.erase(parts.begin());
  ExpectDamaged(Assemble(parts));
}

TEST(StreamAssemblerTest, RefusesMissingAndReorderedChunks) {
  const Parts parts = MakeStream(MakeResponse(), 4);
  const size_t first = Find(parts, kChunk);
  Parts missing = parts;
  missing.erase(missing.begin() + static_cast<int>(first));
  ExpectDamaged(Assemble(missing));
  Parts swapped = parts;
  std::swap(swapped[first], swapped[first + 1]);
  ExpectDamaged(Assemble(swapped));
  Parts doubled = parts;
  doubled.insert(doubled.begin() + static_cast<int>(first), parts[first]);
  ExpectDamaged(Assemble(doubled));
}

TEST(StreamAssemblerTest, RefusesAWrongChecksum) {
  Parts parts = MakeStream(MakeResponse(), 4);
  parts[Find(parts, kChunk)].mutable_chunk()->mutable_data()->at(0) ^= 1;
  ExpectDamaged(Assemble(parts));
}

TEST(StreamAssemblerTest, RefusesMoreBytesThanAnnounced) {
  Parts parts = MakeStream(MakeResponse(), 4);
  parts[Find(parts, kChunk)].mutable_chunk()->mutable_data()->append(100, 'x');
  ExpectDamaged(Assemble(parts));
}

TEST(StreamAssemblerTest, RefusesChunksOfAnotherTensorOrOfNone) {
  Parts parts = MakeStream(MakeResponse(), 4);
  parts[Find(parts, kChunk)].mutable_chunk()->set_name("other");
  ExpectDamaged(Assemble(parts));
  parts = MakeStream(MakeResponse(), 4);
  parts.erase(parts.begin() + static_cast<int>(Find(parts, kTensor)));
  ExpectDamaged(Assemble(parts));
}

TEST(StreamAssemblerTest, RefusesATensorThatEndsEarly) {
  const Parts parts = MakeStream(MakeResponse(), 1000);
  Parts cut = parts;
  cut.erase(cut.begin() + static_cast<int>(Find(parts, kChunk)));
  ExpectDamaged(Assemble(cut));
  // The last tensor, in front of the summary.
  cut = parts;
  cut.erase(cut.end() - 2);
  ExpectDamaged(Assemble(cut));
}

TEST(StreamAssemblerTest, RefusesDoubledAndMissingTensors) {
  v1::ExplainResponse response = MakeResponse();
  *response.add_tensors() = response.tensors(0);
  response.mutable_summary()->set_num_tensors(4);
  ExpectDamaged(Assemble(MakeStream(response, 100)));
  response = MakeResponse();
  response.mutable_summary()->set_num_tensors(5);
  ExpectDamaged(Assemble(MakeStream(response, 100)));
}

TEST(StreamAssemblerTest, AnnouncedSizesAllocateNothing) {
  v1::StreamExplainResponse header, tensor;
  header.mutable_header();
  *tensor.mutable_tensor() = MakeTensor("a", {int64_t{1} << 33}, {}).header();
  tensor.mutable_tensor()->set_num_bytes(int64_t{1} << 35);
  StreamObserver observer;
  StreamAssembler assembler(observer);
  EXPECT_TRUE(assembler.Add(header).ok());
  EXPECT_TRUE(assembler.Add(tensor).ok());  // 32 GiB that never come
  ExpectDamaged(assembler.Finish());
}

TEST(StreamAssemblerTest, KeepsItsLimits) {
  DecodeLimits limits;
  limits.max_total_bytes = 20;
  ExpectDamaged(Assemble(MakeStream(MakeResponse(), 100), limits));
  limits = {};
  limits.max_tensors = 2;
  ExpectDamaged(Assemble(MakeStream(MakeResponse(), 100), limits));
  limits = {};
  limits.tensor.max_bytes = 8;
  ExpectDamaged(Assemble(MakeStream(MakeResponse(), 100), limits));
}

TEST(StreamAssemblerTest, AcceptsEmptyTensors) {
  v1::ExplainResponse response = MakeResponse();
  *response.add_tensors() = MakeTensor("empty", {0}, {});
  response.mutable_summary()->set_num_tensors(4);
  EXPECT_TRUE(Assemble(MakeStream(response, 4)).ok());
}

TEST(DecodeResponseTest, ChecksUnaryReplies) {
  EXPECT_TRUE(DecodeResponse(MakeResponse()).ok());
  v1::ExplainResponse response = MakeResponse();
  response.mutable_tensors(0)->mutable_data()->at(0) ^= 1;
  ExpectDamaged(DecodeResponse(response));
  response = MakeResponse();
  *response.add_tensors() = response.tensors(0);
  ExpectDamaged(DecodeResponse(response));
}

}  // namespace
}  // namespace limpid
