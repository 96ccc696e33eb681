// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/library_logs.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <string>

#include "server/base/mutex.h"

namespace limpid {
namespace {

// A lock and not an atomic pointer: a line may be on its way when the log goes.
Mutex mutex;
Log* current LIMPID_GUARDED_BY(mutex) = nullptr;

void Write(LogLevel level, const char* library, const char* message) {
  MutexLock lock(mutex);
  if (current == nullptr) return;
  current->Write(level, message, {{"library", std::string(library)}});
}

void OnGrpcLine(gpr_log_func_args* line) {
  // What gRPC calls an error is often a peer's fault.
  Write(line->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kWarning
                                                 : LogLevel::kDebug,
        "grpc", line->message);
}

void OnProtobufLine(google::protobuf::LogLevel level, const char*, int,
                    const std::string& message) {
  Write(level >= google::protobuf::LOGLEVEL_FATAL ? LogLevel::kError
                                                  : LogLevel::kDebug,
        "protobuf", message.c_str());
}

}  // namespace

LibraryLogs::LibraryLogs(Log& log) {
  {
    MutexLock lock(mutex);
    current = &log;
  }
  gpr_set_log_function(OnGrpcLine);
  google::protobuf::SetLogHandler(OnProtobufLine);
}

LibraryLogs::~LibraryLogs() {
  MutexLock lock(mutex);
  current = nullptr;
}

}  // namespace limpid
