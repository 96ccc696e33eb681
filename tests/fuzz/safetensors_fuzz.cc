// SPDX-License-Identifier: Apache-2.0
//
// A safetensors file of any bytes is refused as damaged, or its tensors lie
// inside it.
#include "server/base/status.h"
#include "server/checkpoint/safetensors.h"
#include "tests/fuzz/file.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const limpid::fuzz::MemoryFile file(data, size);
  const auto opened = limpid::SafetensorsFile::Open(file.path());
  if (!opened.ok()) {
    LIMPID_FUZZ_CHECK(absl::IsDataLoss(opened.status()));
    LIMPID_FUZZ_CHECK(limpid::GetErrorDetails(opened.status()).reason ==
                      "CHECKPOINT_DAMAGED");
    return 0;
  }
  const auto bytes = opened->bytes();
  for (const auto& [name, tensor] : opened->tensors()) {
    LIMPID_FUZZ_CHECK(static_cast<int64_t>(tensor.data.size()) ==
                      tensor.num_elements() *
                          limpid::ElementBytes(tensor.dtype));
    if (tensor.data.empty()) continue;
    LIMPID_FUZZ_CHECK(tensor.data.data() >= bytes.data());
    LIMPID_FUZZ_CHECK(tensor.data.data() + tensor.data.size() <=
                      bytes.data() + bytes.size());
  }
  return 0;
}
