// SPDX-License-Identifier: Apache-2.0
//
// Errors of calls as the client hands them on: an absl::Status with the
// server's code and message, and the google.rpc details behind it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace grpc {
class Status;
}

namespace limpid {

// What an error carries beside its code. Gateways send no details, so every
// part may be empty.
struct ErrorReport {
  std::string reason;  // stable word, for example "MODEL_NOT_FOUND"
  std::map<std::string, std::string> metadata;
  // Path of the wrong field in the request, and what is wrong with it.
  std::vector<std::pair<std::string, std::string>> violations;
  std::optional<absl::Duration> retry_after;  // not negative
  std::string request_id;
};

// The report of a status that a Client returned.
ErrorReport GetErrorReport(const absl::Status& status);

// The status of a finished call. `request_id` is the id that the call was sent
// with; one that the server names goes before it.
absl::Status FromGrpcStatus(const grpc::Status& status,
                            const std::string& request_id);

// An error that the client itself found, with a reason word.
absl::Status ClientError(absl::StatusCode code, absl::string_view reason,
                         absl::string_view message);

// "INVALID_ARGUMENT" for kInvalidArgument, and so on.
std::string CanonicalName(absl::StatusCode code);

}  // namespace limpid
