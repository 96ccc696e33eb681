// SPDX-License-Identifier: Apache-2.0
//
// Bytes that are a ModelInferRequest become a request of ours or are refused
// with the fields that are wrong.
#include "inference/open_inference.pb.h"
#include "server/rpc/inference_request.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  inference::ModelInferRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto read = limpid::ToExplainRequest(
      message, [](const char*, const std::string& model, const std::string&,
                  limpid::Violations&) { return model; });
  if (read.ok()) {
    LIMPID_FUZZ_CHECK(read->explain.input().kind_case() !=
                      limpid::v1::Input::KIND_NOT_SET);
    // What is no UTF-8 can't be packed again.
    limpid::v1::ExplainRequest again;
    LIMPID_FUZZ_CHECK(again.ParseFromString(read->explain.SerializeAsString()));
    return 0;
  }
  LIMPID_FUZZ_CHECK(absl::IsInvalidArgument(read.status()));
  const auto details = limpid::GetErrorDetails(read.status());
  LIMPID_FUZZ_CHECK(!details.violations.empty());
  for (const auto& violation : details.violations) {
    LIMPID_FUZZ_CHECK(!violation.field.empty());
    LIMPID_FUZZ_CHECK(!violation.description.empty());
  }
  return 0;
}
