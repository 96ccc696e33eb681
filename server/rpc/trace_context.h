// SPDX-License-Identifier: Apache-2.0
//
// W3C Trace Context: who called us as part of which trace.
// https://www.w3.org/TR/trace-context/
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace limpid {

// Identifiers are lower-case hexadecimal digits.
struct TraceContext {
  std::string trace_id;   // 32 digits
  std::string parent_id;  // 16 digits: the caller's span; empty: none
  std::string span_id;    // 16 digits: this call's span
  std::string flags;      // 2 digits

  // The header for whoever is called next, or is answered.
  std::string ToHeader() const;
};

// The trace that a traceparent header continues, or a new one if the header is
// empty or malformed; with a random span of our own.
TraceContext ContinueTrace(absl::string_view traceparent);

}  // namespace limpid
