// SPDX-License-Identifier: Apache-2.0
//
// Errors as every layer of the program makes them: an absl::Status whose
// payload carries a stable reason word, the wrong fields and, where trying
// again can help, when. The RPC layer turns them into google.rpc details.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace limpid {

// One wrong field of a request or a configuration.
struct FieldViolation {
  // Path as in the proto, for example "options.steps" or "attention.layers".
  std::string field;
  // What came, what is allowed.
  std::string description;
};

// What an error carries beside its code and message.
struct ErrorDetails {
  // Stable word in UPPER_SNAKE_CASE, for example "MODEL_NOT_FOUND".
  std::string reason;
  // Facts for machines, for example {"file", "model.safetensors"}.
  std::map<std::string, std::string> metadata;
  std::vector<FieldViolation> violations;
  std::optional<absl::Duration> retry_after;
};

// An error with details. `code` must not be kOk.
absl::Status MakeError(absl::StatusCode code, absl::string_view message,
                       ErrorDetails details);

// Shorthand for an error that has only a reason.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason,
                       absl::string_view message);

// Details of an error; empty for one that was not made by MakeError.
ErrorDetails GetErrorDetails(const absl::Status& status);

// Collects the wrong fields of one request, so that its sender learns of all of
// them at once. Not thread-safe.
class Violations {
 public:
  void Add(absl::string_view field, absl::string_view description);
  bool empty() const { return violations_.empty(); }
  // Ok, or INVALID_ARGUMENT that names every field; its message lists them.
  absl::Status ToStatus(absl::string_view reason = "INVALID_REQUEST") const;

 private:
  std::vector<FieldViolation> violations_;
};

}  // namespace limpid

// Returns from the enclosing function if `expr` is not ok.
#define LIMPID_RETURN_IF_ERROR(expr)                       \
  do {                                                     \
    if (absl::Status _status = (expr); !_status.ok()) {    \
      return _status;                                      \
    }                                                      \
  } while (false)

#define LIMPID_CONCAT_INNER(a, b) a##b
#define LIMPID_CONCAT(a, b) LIMPID_CONCAT_INNER(a, b)
#define LIMPID_ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                                  \
  if (!result.ok()) return std::move(result).status();   \
  lhs = *std::move(result)

// Assigns the value of a StatusOr to `lhs`, or returns its status.
#define LIMPID_ASSIGN_OR_RETURN(lhs, expr) \
  LIMPID_ASSIGN_OR_RETURN_INNER(LIMPID_CONCAT(_result_, __LINE__), lhs, expr)
