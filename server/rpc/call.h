// SPDX-License-Identifier: Apache-2.0
//
// What every call has, whatever its shape: a request id, a deadline, a way to
// be told to stop, and one log line and one set of metrics at its end.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/observe/log.h"
#include "server/observe/metrics.h"
#include "server/rpc/address_range.h"
#include "server/rpc/tokens.h"
#include "server/rpc/trace_context.h"
#include "server/schedule/worker_pool.h"

namespace limpid {

// Counts calls that are not over, so that a shutdown can wait for them.
// Thread-safe.
class CallTracker {
 public:
  explicit CallTracker(Metrics& metrics) : metrics_(metrics) {}
  void Add();
  void Remove();
  // False if there still were some at `limit`.
  bool WaitForNone(absl::Time limit);

 private:
  Metrics& metrics_;
  Mutex mutex_;
  std::condition_variable none_;
  int64_t num_calls_ LIMPID_GUARDED_BY(mutex_) = 0;
};

// What calls report to. Outlives them.
struct CallServices {
  Metrics& metrics;
  Log& log;
  CallTracker& tracker;
  // Limit of a call's time, whatever its caller says.
  absl::Duration max_request_time = absl::InfiniteDuration();
  // From which time on a request is called slow in the log.
  absl::Duration slow_request = absl::InfiniteDuration();
  TokenFile* tokens = nullptr;  // none: everybody may do everything
  // Whose word is taken for whom a call comes from.
  std::vector<AddressRange> trusted_proxies = {};
};

struct RpcName {
  const char* type;            // "unary" or "server_stream"
  const char* service;         // "limpid.v1.ExplanationService"
  const char* method;          // "Explain"
  bool explains;               // counted as an explanation, too
  Role role = Role::kExplain;  // that a caller needs
};

// The fields that describe the explanation are written by whoever works on the
// call at the time: the handler, then a worker. End and NoteClientGone may come
// from any thread.
class Call {
 public:
  // Takes x-request-id from the call's metadata if it is 1 to 128 printable
  // ASCII characters, else makes one, and continues the trace of a traceparent;
  // sends both back.
  Call(const CallServices& services, const RpcName& rpc,
       grpc::CallbackServerContext& context);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  const RpcName& rpc() const { return rpc_; }
  const std::string& request_id() const { return request_id_; }
  CancelToken& cancel() { return cancel_; }
  absl::Time start() const { return start_; }

  // The request's message, if its sender may make the call: UNAUTHENTICATED,
  // PERMISSION_DENIED, or as ParseMessage. Once, before anything else.
  absl::Status Receive(const grpc::ByteBuffer& bytes,
                       google::protobuf::Message& message);
  // Who is to have a fair share of the workers: the name of the token, else
  // the address of the caller's machine (CallerAddress).
  std::string client() const;

  // What to do when the caller is gone, beside cancelling the token; set before
  // the handler returns, so that gRPC can't have told of it before.
  void set_on_gone(std::function<void()> on_gone) {
    on_gone_ = std::move(on_gone);
  }
  // The same for a call with a job of its own, which ends if it still waits.
  void set_job(WorkerPool& pool, JobId job) {
    set_on_gone([&pool, job] { pool.Cancel(job); });
  }

  // The caller has gone or its deadline has passed.
  void NoteClientGone();
  bool client_gone() const { return client_gone_; }

  // The final status with its details, counted, with the time of every stage in
  // the trailing metadata "server-timing". Work that was cancelled without its
  // caller's doing gets UNAVAILABLE: the server is shutting down. Once only.
  // The log line is written when the call goes, so that nobody waits for it.
  grpc::Status End(absl::Status status);

  // For metrics and the log line; model and method of the closed sets only.
  ExplanationMetrics explained;

 private:
  absl::Status Explain(absl::Status status) const;
  absl::Status Authorize();

  const CallServices& services_;
  const RpcName rpc_;
  grpc::CallbackServerContext& context_;
  const std::string request_id_;
  const TraceContext trace_;
  const absl::Time start_;
  CancelToken cancel_;
  std::string caller_;
  std::atomic<bool> client_gone_{false};
  std::function<void()> on_gone_;
  std::optional<RequestLine> line_;  // of a call that has ended
};

// A log line at the level debug: a worker has begun.
void LogStarted(const CallServices& services, const RpcName& rpc,
                const std::string& request_id, const std::string& model);

// `given` if it is a valid request id, else a new random one.
std::string MakeRequestId(absl::string_view given);

}  // namespace limpid
