// SPDX-License-Identifier: Apache-2.0
//
// A Hugging Face config.json with typed access that collects every mistake.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

// No size of a model is larger.
inline constexpr int64_t kMaxSize = int64_t{1} << 24;

// Reads fields of a config.json. A missing field takes the default given; a
// field of the wrong type or out of range is noted and the default returned, so
// that status() can name every wrong field at once. Accepts the bare Infinity,
// -Infinity and NaN that Python writes, and {"__float__": "Infinity"}. A null
// is a missing field. Not thread-safe.
class HfConfig {
 public:
  // DATA_LOSS, reason CONFIG_DAMAGED, if the text is not a JSON object.
  // `file` is for messages.
  static absl::StatusOr<HfConfig> Parse(absl::string_view text,
                                        std::string file);

  HfConfig(HfConfig&&) noexcept;
  HfConfig& operator=(HfConfig&&) noexcept;
  ~HfConfig();

  bool Has(absl::string_view name) const;
  // For the few fields whose null means something else than leaving them out.
  bool IsNull(absl::string_view name) const;
  // For fields that are a number or a word, as time_step_rank is.
  bool IsString(absl::string_view name) const;
  int64_t Int(absl::string_view name, int64_t fallback, int64_t min,
              int64_t max);
  // As Int, but the field must be there.
  int64_t RequiredInt(absl::string_view name, int64_t min, int64_t max);
  double Double(absl::string_view name, double fallback);
  bool Bool(absl::string_view name, bool fallback);
  std::string String(absl::string_view name, absl::string_view fallback);
  std::vector<std::string> Strings(absl::string_view name);
  // A list of numbers; a number by itself is a list of one.
  std::vector<double> Doubles(absl::string_view name);
  // The object under `name`, empty if missing. Its mistakes are its own.
  HfConfig Object(absl::string_view name);

  // Notes a mistake that the caller found.
  void AddError(absl::string_view name, absl::string_view what);
  // Ok, or DATA_LOSS, reason CONFIG_INVALID, naming every wrong field.
  absl::Status status() const;

 private:
  struct Impl;
  explicit HfConfig(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace limpid
