// SPDX-License-Identifier: Apache-2.0
//
// The one place where our errors become gRPC's.
#pragma once

#include <string>

#include <grpcpp/support/status.h>

#include "server/base/status.h"

namespace limpid {

// A status with google.rpc.Status details: ErrorInfo (domain "limpid", the
// reason, "request_id" among its metadata) always, BadRequest and RetryInfo
// where the error has them. Details are cut to what fits a client's default
// limit for metadata (8 KiB), and then say so. Never kOk with details.
grpc::Status ToGrpcStatus(const absl::Status& status,
                          const std::string& request_id);

// The reason word of an error: its own, else one made of its code.
std::string ReasonOf(const absl::Status& status);

}  // namespace limpid
