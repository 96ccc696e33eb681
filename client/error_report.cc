// SPDX-License-Identifier: Apache-2.0
#include "client/error_report.h"

#include <grpcpp/support/status.h>

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/types/optional.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace limpid {
namespace {

// A serialized google.rpc.Status.
constexpr char kDetailsUrl[] = "limpid-client/google.rpc.Status";
constexpr char kRequestIdUrl[] = "limpid-client/request-id";

// Any number may come over the wire; absl saturates, and a wait is not
// negative.
absl::Duration WaitOf(const google::protobuf::Duration& duration) {
  return std::max(
      absl::ZeroDuration(),
      absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos()));
}

void Decode(const google::protobuf::Any& detail, ErrorReport& report) {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
  google::rpc::RetryInfo retry;
  google::rpc::RequestInfo request;
  if (detail.UnpackTo(&info)) {
    report.reason = info.reason();
    for (const auto& [key, value] : info.metadata()) {
      report.metadata[key] = value;
    }
  } else if (detail.UnpackTo(&bad_request)) {
    for (const auto& violation : bad_request.field_violations()) {
      report.violations.emplace_back(violation.field(),
                                     violation.description());
    }
  } else if (detail.UnpackTo(&retry)) {
    report.retry_after = WaitOf(retry.retry_delay());
  } else if (detail.UnpackTo(&request)) {
    report.request_id = request.request_id();
  }
}

}  // namespace

ErrorReport GetErrorReport(const absl::Status& status) {
  ErrorReport report;
  google::rpc::Status details;
  const absl::optional<absl::Cord> payload = status.GetPayload(kDetailsUrl);
  if (payload && details.ParseFromString(std::string(*payload))) {
    for (const auto& detail : details.details()) Decode(detail, report);
  }
  if (report.request_id.empty()) {
    const auto named = report.metadata.find("request_id");
    const absl::optional<absl::Cord> sent = status.GetPayload(kRequestIdUrl);
    if (named != report.metadata.end()) {
      report.request_id = named->second;
    } else if (sent) {
      report.request_id = std::string(*sent);
    }
  }
  return report;
}

absl::Status FromGrpcStatus(const grpc::Status& status,
                            const std::string& request_id) {
  if (status.ok()) return absl::OkStatus();
  absl::Status out(static_cast<absl::StatusCode>(status.error_code()),
                   status.error_message());
  if (!status.error_details().empty()) {
    out.SetPayload(kDetailsUrl, absl::Cord(status.error_details()));
  }
  if (!request_id.empty()) {
    out.SetPayload(kRequestIdUrl, absl::Cord(request_id));
  }
  return out;
}

absl::Status ClientError(absl::StatusCode code, absl::string_view reason,
                         absl::string_view message) {
  google::rpc::ErrorInfo info;
  info.set_domain("limpid-client");
  info.set_reason(std::string(reason));
  google::rpc::Status details;
  details.add_details()->PackFrom(info);
  absl::Status out(code, message);
  out.SetPayload(kDetailsUrl, absl::Cord(details.SerializeAsString()));
  return out;
}

std::string CanonicalName(absl::StatusCode code) {
  return absl::StatusCodeToString(code);
}

}  // namespace limpid
