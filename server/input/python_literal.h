// SPDX-License-Identifier: Apache-2.0
//
// Reads a Python string or bytes literal without a Python.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid {

// The bytes of a literal that is the whole of `source`: 'x', "x", b'x', with
// the prefixes u, b and r and all escapes; a string's characters become UTF-8.
// Triple quotes, formatted strings and \N{} with an abbreviation (\N{LF}) are
// not read. INVALID_ARGUMENT saying what is wrong, also for a string that has
// no UTF-8 (surrogates). `source` must be UTF-8.
absl::StatusOr<std::string> ParsePythonLiteral(absl::string_view source);

}  // namespace limpid
