// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/unary_call.h"

#include <exception>
#include <new>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/rpc/parse.h"

namespace limpid {

absl::Status StatusOfException() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    ErrorDetails details;
    details.reason = "OUT_OF_MEMORY";
    details.retry_after = absl::Seconds(1);
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "the server is out of memory", details);
  } catch (const std::exception& e) {
    return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                     absl::StrCat("exception: ", e.what()));
  } catch (...) {
    return MakeError(absl::StatusCode::kInternal, "INTERNAL",
                     "unknown exception");
  }
}

void UnaryCall::Reply(const google::protobuf::Message& message) {
  if (answered_.exchange(true)) return;
  const absl::Time begin = absl::Now();
  absl::Status status;
  try {
    status = SerializeMessage(message, response_);
  } catch (...) {
    status = StatusOfException();
  }
  call_.explained.serialize += absl::Now() - begin;
  if (status.ok()) {
    call_.explained.reply_bytes = static_cast<int64_t>(response_.Length());
  }
  Finish(call_.End(std::move(status)));
}

void UnaryCall::Fail(const absl::Status& status) {
  if (answered_.exchange(true)) return;
  Finish(call_.End(status));
}

void UnaryCall::Guard(const std::function<void()>& body) {
  try {
    body();
  } catch (...) {
    Fail(StatusOfException());
  }
}

}  // namespace limpid
