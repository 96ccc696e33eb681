// SPDX-License-Identifier: Apache-2.0
//
// A config.json of any bytes is refused as damaged, or every field can be asked
// for as every type, within the limits that were named.
#include "server/base/status.h"
#include "server/checkpoint/hf_config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto config = limpid::HfConfig::Parse(
      {reinterpret_cast<const char*>(data), size}, "config.json");
  if (!config.ok()) {
    LIMPID_FUZZ_CHECK(absl::IsDataLoss(config.status()));
    return 0;
  }
  for (const char* name : {"model_type", "hidden_size", "time_step_rank",
                           "layer_norm_epsilon", "use_bias", "block_types"}) {
    config->Has(name);
    config->IsNull(name);
    config->IsString(name);
    const int64_t number = config->Int(name, 5, 1, 10);
    LIMPID_FUZZ_CHECK(number >= 1 && number <= 10);
    config->RequiredInt(name, 1, 10);
    config->Double(name, 0.5);
    config->Bool(name, true);
    config->String(name, "");
    config->Strings(name);
    config->Doubles(name);
    limpid::HfConfig inner = config->Object(name);
    inner.Int(name, 1, 0, 2);
  }
  // Something of these can't have been right.
  LIMPID_FUZZ_CHECK(absl::IsDataLoss(config->status()));
  return 0;
}
