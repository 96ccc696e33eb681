// SPDX-License-Identifier: Apache-2.0
//
// gRPC and Protobuf write to standard error by themselves; this puts their
// lines into the log, so that it stays one JSON object per line.
#pragma once

#include "server/observe/log.h"

namespace limpid {

// While it lives; one at a time per process. `log` outlives it.
class LibraryLogs {
 public:
  explicit LibraryLogs(Log& log);
  ~LibraryLogs();
  LibraryLogs(const LibraryLogs&) = delete;
  LibraryLogs& operator=(const LibraryLogs&) = delete;
};

}  // namespace limpid
