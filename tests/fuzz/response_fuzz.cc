// SPDX-License-Identifier: Apache-2.0
//
// A reply of any bytes is refused by the client as damaged, or its tensors can
// be unpacked. The first byte is 0 for a unary reply; else the rest is a
// stream: messages, each after its length in two bytes.
#include <algorithm>
#include <utility>

#include "client/decode.h"
#include "client/tensor_codec.h"
#include "tests/fuzz/fuzz.h"

namespace limpid {
namespace {

DecodeLimits SmallLimits() {
  DecodeLimits limits;
  limits.tensor.max_bytes = 1 << 16;
  limits.max_tensors = 64;
  limits.max_total_bytes = 1 << 18;
  return limits;
}

void Judge(const absl::StatusOr<Explanation>& explanation) {
  if (!explanation.ok()) {
    LIMPID_FUZZ_CHECK(absl::IsDataLoss(explanation.status()));
    return;
  }
  for (const auto& [name, tensor] : explanation->tensors) {
    LIMPID_FUZZ_CHECK(CheckTensor(tensor, SmallLimits().tensor).ok());
    if (tensor.header().data_type() == v1::DATA_TYPE_INT64) {
      const auto numbers = UnpackInts(tensor);
      LIMPID_FUZZ_CHECK(!numbers.ok() ||
                        std::ssize(*numbers) == NumElements(tensor.header()));
    } else {
      const auto numbers = UnpackFloats(tensor);
      LIMPID_FUZZ_CHECK(!numbers.ok() ||
                        std::ssize(*numbers) == NumElements(tensor.header()));
    }
  }
}

void JudgeStream(const uint8_t* data, size_t size) {
  const StreamObserver observer;
  StreamAssembler assembler(observer, SmallLimits());
  while (size >= 2) {
    const size_t length =
        std::min<size_t>(size - 2, data[0] | static_cast<size_t>(data[1]) << 8);
    v1::StreamExplainResponse part;
    if (!part.ParseFromArray(data + 2, static_cast<int>(length))) return;
    const absl::Status status = assembler.Add(std::move(part));
    if (!status.ok()) {
      LIMPID_FUZZ_CHECK(absl::IsDataLoss(status));
      return;
    }
    data += 2 + length;
    size -= 2 + length;
  }
  Judge(assembler.Finish());
}

}  // namespace
}  // namespace limpid

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  if (data[0] != 0) {
    limpid::JudgeStream(data + 1, size - 1);
    return 0;
  }
  limpid::v1::ExplainResponse response;
  if (!response.ParseFromArray(data + 1, static_cast<int>(size) - 1)) return 0;
  limpid::Judge(
      limpid::DecodeResponse(std::move(response), limpid::SmallLimits()));
  return 0;
}
