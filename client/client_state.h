// SPDX-License-Identifier: Apache-2.0
//
// What the blocking and the callback form of the client's calls share. Not
// installed.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/channel.h"
#include "client/client.h"
#include "client/retry.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "limpid/v1/explanation.grpc.pb.h"
#include "limpid/v1/model.grpc.pb.h"

namespace limpid {

// Thread-safe. Outlives every call.
struct ClientState {
  ClientOptions options;
  Connection connection;
  std::unique_ptr<v1::ExplanationService::Stub> explanations;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;

  std::mutex mutex;
  std::condition_variable wake;
  std::set<grpc::ClientContext*> running;  // guarded by mutex
  std::set<grpc::Alarm*> alarms;           // guarded by mutex
  int num_async = 0;                       // guarded by mutex
  bool cancelled = false;                  // guarded by mutex

  // Makes a context known to Cancel() for as long as it lives.
  class Call {
   public:
    Call(ClientState& state, absl::Time deadline, const std::string& request_id)
        : state_(state) {
      if (deadline != absl::InfiniteFuture()) {
        context_.set_deadline(absl::ToChronoTime(deadline));
      }
      context_.AddMetadata("x-request-id", request_id);
      if (!state.connection.authorization.empty()) {
        context_.AddMetadata("authorization", state.connection.authorization);
      }
      const std::lock_guard<std::mutex> lock(state_.mutex);
      state_.running.insert(&context_);
      if (state_.cancelled) context_.TryCancel();
    }
    ~Call() {
      const std::lock_guard<std::mutex> lock(state_.mutex);
      state_.running.erase(&context_);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    grpc::ClientContext& context() { return context_; }

    // The id by which the server knows the call, if it says so. Only trailing
    // metadata is looked at: reading initial metadata that never came aborts.
    std::string ServerRequestId() const {
      const auto& headers = context_.GetServerTrailingMetadata();
      const auto it = headers.find("x-request-id");
      return it == headers.end()
                 ? ""
                 : std::string(it->second.data(), it->second.size());
    }

   private:
    ClientState& state_;
    grpc::ClientContext context_;
  };

  bool Sleep(absl::Duration duration) {
    std::unique_lock<std::mutex> lock(mutex);
    return !wake.wait_for(lock, absl::ToChronoNanoseconds(duration),
                          [this] { return cancelled; });
  }

  absl::Time Deadline() const { return absl::Now() + options.deadline; }

  std::string NewRequestId(absl::BitGen& random) const {
    return options.request_id.empty()
               ? absl::StrFormat("%016x", absl::Uniform<uint64_t>(random))
               : options.request_id;
  }

  // One call with its tries. `attempt` makes a try and says whether it may be
  // repeated.
  absl::Status Run(
      absl::Time deadline,
      const std::function<std::pair<grpc::Status, bool>(grpc::ClientContext&)>&
          attempt) {
    // Seeding one takes longer than all else that is done here.
    thread_local absl::BitGen random;
    const std::string request_id = NewRequestId(random);
    const RetryEnvironment environment{
        .now = [] { return absl::Now(); },
        .sleep = [this](absl::Duration delay) { return Sleep(delay); },
        .random = [] { return absl::Uniform(random, 0.0, 1.0); }};
    return RunWithRetry(options.retry, environment, deadline, [&]() -> Attempt {
      Call call(*this, deadline, request_id);
      const auto [status, repeatable] = attempt(call.context());
      const std::string named = call.ServerRequestId();
      return {FromGrpcStatus(status, named.empty() ? request_id : named),
              repeatable};
    });
  }

  // A unary call.
  template <class Stub, class Request, class Response>
  absl::Status Unary(Stub& stub,
                     grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                  const Request&, Response*),
                     const Request& request, Response* response,
                     absl::Time deadline) {
    return Run(deadline, [&](grpc::ClientContext& context) {
      response->Clear();
      return std::make_pair((stub.*method)(&context, request, response), true);
    });
  }

  // A call about one model.
  template <class Request, class Response>
  absl::StatusOr<v1::Model> OneModel(
      grpc::Status (v1::ModelService::Stub::*method)(grpc::ClientContext*,
                                                     const Request&, Response*),
      const std::string& name) {
    Request request;
    request.set_model(name);
    Response response;
    const absl::Status status =
        Unary(*models, method, request, &response, Deadline());
    if (!status.ok()) return status;
    return response.model();
  }
};

}  // namespace limpid
