// SPDX-License-Identifier: Apache-2.0
//
// StreamExplain over TCP: order, chunks, checksums, ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <chrono>
#include <thread>

#include "absl/strings/match.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using ::testing::UnorderedElementsAre;

class StreamRpcTest : public ::testing::Test {
 protected:
  grpc::Status Read(const v1::ExplainRequest& request,
                    std::vector<v1::StreamExplainResponse>& parts) {
    grpc::ClientContext context;
    auto reader = server_.explanations().StreamExplain(&context, request);
    v1::StreamExplainResponse part;
    while (reader->Read(&part)) parts.push_back(part);
    return reader->Finish();
  }

  InProcessServer server_;
};

TEST_F(StreamRpcTest, TensorsComeInCheckedChunksBetweenHeaderAndSummary) {
  server_.engine.num_extra_floats = 1000000;
  server_.options.max_unary_reply_bytes = 1024;  // no limit for streams
  server_.Start();
  std::vector<v1::StreamExplainResponse> parts;
  const grpc::Status status = Read(TextRequest("abc"), parts);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(parts.front().has_header());
  ASSERT_TRUE(parts.back().has_summary());
  v1::TensorHeader header;
  std::string data;
  int num_tensors = 0, num_progress = 0;
  const auto check = [&] {
    if (header.name().empty()) return;
    EXPECT_EQ(header.num_bytes(), static_cast<int64_t>(data.size()));
    EXPECT_EQ(header.crc32(),
              crc32(0, reinterpret_cast<const Bytef*>(data.data()),
                    static_cast<uInt>(data.size())));
    ++num_tensors;
  };
  for (const auto& part : parts) {
    if (part.has_tensor()) {
      check();
      header = part.tensor();
      data.clear();
    } else if (part.has_chunk()) {
      EXPECT_EQ(part.chunk().name(), header.name());
      EXPECT_EQ(part.chunk().offset(), static_cast<int64_t>(data.size()));
      EXPECT_LE(part.chunk().data().size(), 512u << 10);
      data += part.chunk().data();
    } else if (part.has_progress()) {
      ++num_progress;
    }
  }
  check();
  EXPECT_EQ(num_tensors, 2);
  EXPECT_EQ(num_tensors, parts.back().summary().num_tensors());
  EXPECT_EQ(num_progress, 1);
}

TEST_F(StreamRpcTest, ErrorsAfterTheHeaderEndTheStreamWithoutSummary) {
  server_.engine.run_status =
      MakeError(absl::StatusCode::kInternal, "BROKEN", "broken");
  server_.Start();
  std::vector<v1::StreamExplainResponse> parts;
  const grpc::Status status = Read(TextRequest("abc"), parts);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(DetailsOf(status).info.reason(), "BROKEN");
  for (const auto& part : parts) EXPECT_FALSE(part.has_summary());
}

TEST_F(StreamRpcTest, WrongFieldsAreRefused) {
  server_.Start();
  v1::ExplainRequest request = TextRequest("");
  request.add_points()->mutable_position();
  std::vector<v1::StreamExplainResponse> parts;
  const grpc::Status status = Read(request, parts);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(DetailsOf(status).Fields(),
              UnorderedElementsAre("input.text", "points[0].position"));
}

TEST_F(StreamRpcTest, CancelledStreamsEndTheirWork) {
  server_.Start();
  server_.engine.Hold();
  grpc::ClientContext context;
  auto reader =
      server_.explanations().StreamExplain(&context, TextRequest("abc"));
  v1::StreamExplainResponse part;
  ASSERT_TRUE(reader->Read(&part));
  EXPECT_TRUE(part.has_header());
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  while (!absl::StrContains(server_.LogText(), "CANCELLED")) {
    std::this_thread::yield();
  }
}

TEST_F(StreamRpcTest, ReadersThatStallAreCut) {
  server_.options.stream.max_stall = absl::Milliseconds(50);
  server_.engine.num_extra_floats = 16 << 20;  // more than any buffer between
  server_.Start();
  grpc::ClientContext context;
  auto reader =
      server_.explanations().StreamExplain(&context, TextRequest("abc"));
  while (!absl::StrContains(server_.LogText(), "READER_STALLED")) {
    std::this_thread::yield();
  }
  v1::StreamExplainResponse part;
  while (reader->Read(&part)) EXPECT_FALSE(part.has_summary());
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(StreamRpcTest, TimeOfTheReaderIsNotTimeOfTheEngine) {
  server_.engine.num_extra_floats = 1 << 20;
  server_.engine.num_extra_tensors = 10;  // more than any buffer between
  server_.Start();
  grpc::ClientContext context;
  auto reader =
      server_.explanations().StreamExplain(&context, TextRequest("abc"));
  while (server_.engine.num_tensors_taken() == 0) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::seconds(1));
  v1::StreamExplainResponse part, last;
  while (reader->Read(&part)) last = part;
  ASSERT_TRUE(reader->Finish().ok());
  const google::protobuf::Duration& compute = last.summary().times().compute();
  EXPECT_EQ(compute.seconds(), 0);
  EXPECT_GT(compute.nanos(), 0);
  EXPECT_LT(compute.nanos(), 800'000'000);
}

TEST_F(StreamRpcTest, UnreadStreamsBufferFewBytes) {
  // What was taken of the engine and not read by the client waits in the
  // stream's buffer, in gRPC, or in the sockets.
  constexpr int kTensorBytes = 256 << 10;
  constexpr int kBuffer = 4 << 20;
  constexpr int kSockets = 4 << 20;
  server_.options.stream.max_stall = absl::Milliseconds(200);
  server_.engine.num_extra_floats = kTensorBytes / sizeof(float);
  server_.engine.num_extra_tensors = 1000;
  server_.Start();
  grpc::ClientContext context;
  auto reader =
      server_.explanations().StreamExplain(&context, TextRequest("abc"));
  while (!absl::StrContains(server_.LogText(), "READER_STALLED")) {
    std::this_thread::yield();
  }
  EXPECT_LE(server_.engine.num_tensors_taken() * kTensorBytes,
            kBuffer + kSockets);
  context.TryCancel();
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(StreamRpcTest, StreamsThatNobodyReadsHoldNoWorker) {
  server_.options.num_workers = 1;
  server_.engine.num_extra_floats = 4 << 20;  // more than any buffer between
  server_.Start();
  grpc::ClientContext unread;
  auto reader =
      server_.explanations().StreamExplain(&unread, TextRequest("abc"));
  server_.engine.WaitForRuns(1);
  grpc::ClientContext context;
  v1::ExplainResponse response;
  EXPECT_TRUE(server_.explanations()
                  .Explain(&context, TextRequest("other"), &response)
                  .ok());
  // The first has not ended meanwhile.
  EXPECT_EQ(server_.serving().pool().load().num_running, 1);
  unread.TryCancel();
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(StreamRpcTest, ShutdownEndsStreamsThatNobodyReads) {
  server_.engine.num_extra_floats = 16 << 20;
  server_.Start();
  grpc::ClientContext context;
  auto reader =
      server_.explanations().StreamExplain(&context, TextRequest("abc"));
  server_.engine.WaitForRuns(1);
  EXPECT_TRUE(
      server_.serving().Drain(absl::InfinitePast(), absl::InfiniteFuture()));
  v1::StreamExplainResponse part;
  while (reader->Read(&part)) EXPECT_FALSE(part.has_summary());
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace limpid::testing
