// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/trace_context.h"

#include <algorithm>
#include <random>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace limpid {
namespace {

constexpr absl::string_view kInvalidVersion = "ff";
constexpr char kOurVersion[] = "00";
constexpr char kNotSampled[] = "00";

std::mt19937_64& Random() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return random;
}

bool IsHex(absl::string_view text, size_t size) {
  return text.size() == size &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

bool IsId(absl::string_view text, size_t size) {
  return IsHex(text, size) &&
         text.find_first_not_of('0') != absl::string_view::npos;
}

}  // namespace

std::string TraceContext::ToHeader() const {
  return absl::StrCat(kOurVersion, "-", trace_id, "-", span_id, "-", flags);
}

TraceContext ContinueTrace(absl::string_view traceparent) {
  TraceContext context;
  context.span_id = absl::StrFormat("%016x", Random()() | 1);
  const std::vector<absl::string_view> parts = absl::StrSplit(traceparent, '-');
  // Later versions may add parts behind the four that are known.
  const bool known =
      parts.size() >= 4 && IsHex(parts[0], 2) && parts[0] != kInvalidVersion &&
      (parts.size() == 4 || parts[0] != kOurVersion) && IsId(parts[1], 32) &&
      IsId(parts[2], 16) && IsHex(parts[3], 2);
  if (known) {
    context.trace_id = std::string(parts[1]);
    context.parent_id = std::string(parts[2]);
    context.flags = std::string(parts[3]);
  } else {
    context.trace_id =
        absl::StrFormat("%016x%016x", Random()(), Random()() | 1);
    context.flags = kNotSampled;
  }
  return context;
}

}  // namespace limpid
