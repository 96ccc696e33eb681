// SPDX-License-Identifier: Apache-2.0
//
// Flags of explain as a request.
#pragma once

#include "absl/status/statusor.h"
#include "client/cli/command_line.h"
#include "limpid/v1/explanation.pb.h"

namespace limpid::cli {

// The request with everything but its input, which BuildInput adds. A flag that
// was not written leaves its field unset, so that the server's default holds.
// Any error means wrong usage; its message names the flag.
absl::StatusOr<v1::ExplainRequest> BuildRequest(const ExplainFlags& flags);

// The input, read from its file where there is one. Not for --jsonl.
absl::StatusOr<v1::Input> BuildInput(const ExplainFlags& flags);

}  // namespace limpid::cli
