// SPDX-License-Identifier: Apache-2.0
//
// Certificates for tests, made when they run.
#pragma once

#include <string>

namespace limpid::testing {

// PEM text.
struct Identity {
  std::string certificate;
  std::string key;
};

// A certificate that signs others.
Identity MakeAuthority(const std::string& name);

// One for the host 127.0.0.1, signed by `authority`; valid from a day ago, for
// `days` days from now, which may be negative but not less than -1.
Identity Issue(const Identity& authority, const std::string& name,
               int days = 1);

}  // namespace limpid::testing
