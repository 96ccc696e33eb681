// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/status_map.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/rpc/safe_text.h"

namespace limpid {
namespace {

constexpr char kDomain[] = "limpid";
// The message is sent twice (percent-encoded as grpc-message, and within the
// details) and the details as base64: three times 0.75 KiB and 4/3 of 3 KiB
// stay below 8 KiB even for a message that needs escaping throughout.
constexpr size_t kMaxMessageBytes = 768;
constexpr size_t kMaxDetailsBytes = 2048;
constexpr size_t kMaxValueBytes = 512;

std::string Cut(absl::string_view text, size_t limit) {
  std::string safe = SafeText(text);
  if (safe.size() <= limit) return safe;
  return absl::StrCat(CutUtf8(safe, limit), "...");
}

google::rpc::ErrorInfo MakeErrorInfo(const absl::Status& status,
                                     const ErrorDetails& details,
                                     const std::string& request_id) {
  google::rpc::ErrorInfo info;
  info.set_reason(ReasonOf(status));
  info.set_domain(kDomain);
  for (const auto& [key, value] : details.metadata) {
    (*info.mutable_metadata())[Cut(key, kMaxValueBytes)] =
        Cut(value, kMaxValueBytes);
  }
  if (!request_id.empty()) {
    (*info.mutable_metadata())["request_id"] = request_id;
  }
  return info;
}

google::rpc::BadRequest MakeBadRequest(const ErrorDetails& details,
                                       size_t limit) {
  google::rpc::BadRequest bad;
  size_t num_left = details.violations.size();
  for (const FieldViolation& violation : details.violations) {
    auto* out = bad.add_field_violations();
    out->set_field(Cut(violation.field, kMaxValueBytes));
    out->set_description(Cut(violation.description, kMaxValueBytes));
    if (bad.ByteSizeLong() > limit && bad.field_violations_size() > 1) {
      out->set_field("");
      out->set_description(absl::StrCat("and ", num_left, " more"));
      break;
    }
    --num_left;
  }
  return bad;
}

google::rpc::RetryInfo MakeRetryInfo(absl::Duration after) {
  google::rpc::RetryInfo retry;
  absl::Duration rest;
  auto* delay = retry.mutable_retry_delay();
  delay->set_seconds(absl::IDivDuration(after, absl::Seconds(1), &rest));
  delay->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return retry;
}

}  // namespace

std::string ReasonOf(const absl::Status& status) {
  const ErrorDetails details = GetErrorDetails(status);
  return details.reason.empty() ? absl::StatusCodeToString(status.code())
                                : details.reason;
}

grpc::Status ToGrpcStatus(const absl::Status& status,
                          const std::string& request_id) {
  if (status.ok()) return grpc::Status::OK;
  const ErrorDetails details = GetErrorDetails(status);
  const std::string message = Cut(status.message(), kMaxMessageBytes);
  google::rpc::Status out;
  out.set_code(static_cast<int32_t>(status.code()));
  out.set_message(message);
  google::rpc::ErrorInfo info = MakeErrorInfo(status, details, request_id);
  if (info.ByteSizeLong() > kMaxDetailsBytes) {
    info.clear_metadata();
    (*info.mutable_metadata())["request_id"] = request_id;
  }
  out.add_details()->PackFrom(info);
  if (details.retry_after) {
    out.add_details()->PackFrom(MakeRetryInfo(*details.retry_after));
  }
  if (!details.violations.empty()) {
    const size_t used = std::min(kMaxDetailsBytes, info.ByteSizeLong());
    out.add_details()->PackFrom(
        MakeBadRequest(details, kMaxDetailsBytes - used));
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      out.SerializeAsString());
}

}  // namespace limpid
