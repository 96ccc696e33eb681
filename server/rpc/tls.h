// SPDX-License-Identifier: Apache-2.0
//
// The files of a TLS listener, judged before anything listens. No gRPC.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/status.h"

namespace limpid {

// PEM files. gRPC reads them again every `reload`, so that certificates can be
// renewed while the server runs; both files of a pair must then change at once
// (a symbolic link to their folder).
struct TlsFiles {
  std::string certificate;  // the server's, then those that signed it
  std::string key;
  std::string client_ca;  // not empty: clients must have a certificate from it
  absl::Duration reload = absl::Seconds(60);
};

// Every reason why the files can't be used, with the fields "certificate_file",
// "key_file" and "client_ca_file": unreadable, not PEM, expired, a key that
// does not belong to the certificate.
std::vector<FieldViolation> CheckTlsFiles(const TlsFiles& files);

}  // namespace limpid
