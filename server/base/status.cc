// SPDX-License-Identifier: Apache-2.0
#include "server/base/status.h"

#include <cstdint>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

constexpr char kPayloadUrl[] = "limpid/error-details";

// The payload is a list of strings, each behind its length: "5:hello".
void Append(std::string& out, absl::string_view text) {
  absl::StrAppend(&out, text.size(), ":", text);
}

bool Take(absl::string_view& in, std::string& text) {
  const size_t colon = in.find(':');
  uint64_t size = 0;
  if (colon == absl::string_view::npos ||
      !absl::SimpleAtoi(in.substr(0, colon), &size) ||
      in.size() - colon - 1 < size) {
    return false;
  }
  text = std::string(in.substr(colon + 1, size));
  in.remove_prefix(colon + 1 + size);
  return true;
}

std::string Pack(const ErrorDetails& details) {
  std::string out;
  Append(out, details.reason);
  Append(out, details.retry_after
                  ? absl::StrCat(absl::ToInt64Nanoseconds(*details.retry_after))
                  : "");
  Append(out, absl::StrCat(details.metadata.size()));
  for (const auto& [key, value] : details.metadata) {
    Append(out, key);
    Append(out, value);
  }
  for (const FieldViolation& violation : details.violations) {
    Append(out, violation.field);
    Append(out, violation.description);
  }
  return out;
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, absl::string_view message,
                       ErrorDetails details) {
  absl::Status status(code, message);
  status.SetPayload(kPayloadUrl, absl::Cord(Pack(details)));
  return status;
}

absl::Status MakeError(absl::StatusCode code, absl::string_view reason,
                       absl::string_view message) {
  ErrorDetails details;
  details.reason = std::string(reason);
  return MakeError(code, message, std::move(details));
}

ErrorDetails GetErrorDetails(const absl::Status& status) {
  ErrorDetails details;
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  if (!payload) return details;
  const std::string bytes(*payload);
  absl::string_view in = bytes;
  std::string retry, count;
  int64_t nanoseconds = 0, num_metadata = 0;
  if (!Take(in, details.reason) || !Take(in, retry) || !Take(in, count) ||
      !absl::SimpleAtoi(count, &num_metadata)) {
    return details;
  }
  if (absl::SimpleAtoi(retry, &nanoseconds)) {
    details.retry_after = absl::Nanoseconds(nanoseconds);
  }
  for (std::string key, value; num_metadata > 0; --num_metadata) {
    if (!Take(in, key) || !Take(in, value)) return details;
    details.metadata[key] = value;
  }
  FieldViolation violation;
  while (Take(in, violation.field) && Take(in, violation.description)) {
    details.violations.push_back(violation);
  }
  return details;
}

void Violations::Add(absl::string_view field, absl::string_view description) {
  violations_.push_back({std::string(field), std::string(description)});
}

absl::Status Violations::ToStatus(absl::string_view reason) const {
  if (violations_.empty()) return absl::OkStatus();
  std::string message;
  for (const FieldViolation& violation : violations_) {
    absl::StrAppend(&message, message.empty() ? "" : "; ", violation.field,
                    ": ", violation.description);
  }
  ErrorDetails details;
  details.reason = std::string(reason);
  details.violations = violations_;
  return MakeError(absl::StatusCode::kInvalidArgument, message,
                   std::move(details));
}

}  // namespace limpid
