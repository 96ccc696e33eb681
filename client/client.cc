// SPDX-License-Identifier: Apache-2.0
#include "client/client.h"

#include <grpcpp/client_context.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/channel.h"
#include "client/decode.h"
#include "client/retry.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "limpid/v1/explanation.grpc.pb.h"
#include "limpid/v1/model.grpc.pb.h"

namespace limpid {

struct Client::Impl {
  ClientOptions options;
  Connection connection;
  std::unique_ptr<v1::ExplanationService::Stub> explanations;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;

  std::mutex mutex;
  std::condition_variable wake;
  std::set<grpc::ClientContext*> running;  // guarded by mutex
  bool cancelled = false;                  // guarded by mutex

  // Makes a context known to Cancel() for as long as it lives.
  class Call {
   public:
    Call(Impl& impl, absl::Time deadline, const std::string& request_id)
        : impl_(impl) {
      if (deadline != absl::InfiniteFuture()) {
        context_.set_deadline(absl::ToChronoTime(deadline));
      }
      context_.AddMetadata("x-request-id", request_id);
      if (!impl.connection.authorization.empty()) {
        context_.AddMetadata("authorization", impl.connection.authorization);
      }
      const std::lock_guard<std::mutex> lock(impl_.mutex);
      impl_.running.insert(&context_);
      if (impl_.cancelled) context_.TryCancel();
    }
    ~Call() {
      const std::lock_guard<std::mutex> lock(impl_.mutex);
      impl_.running.erase(&context_);
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
    Impl& impl_;
    grpc::ClientContext context_;
  };

  bool Sleep(absl::Duration duration) {
    std::unique_lock<std::mutex> lock(mutex);
    return !wake.wait_for(lock, absl::ToChronoNanoseconds(duration),
                          [this] { return cancelled; });
  }

  absl::Time Deadline() const { return absl::Now() + options.deadline; }

  // One call with its tries. `attempt` makes a try and says whether it may be
  // repeated.
  absl::Status Run(
      absl::Time deadline,
      const std::function<std::pair<grpc::Status, bool>(grpc::ClientContext&)>&
          attempt) {
    absl::BitGen random;
    const std::string request_id =
        options.request_id.empty()
            ? absl::StrFormat("%016x", absl::Uniform<uint64_t>(random))
            : options.request_id;
    RetryPolicy policy;
    policy.max_attempts = options.max_attempts;
    const RetryEnvironment environment{
        .now = [] { return absl::Now(); },
        .sleep = [this](absl::Duration delay) { return Sleep(delay); },
        .random = [&random] { return absl::Uniform(random, 0.0, 1.0); }};
    return RunWithRetry(policy, environment, deadline, [&]() -> Attempt {
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

  absl::StatusOr<Explanation> Stream(const v1::ExplainRequest& request,
                                     const StreamObserver& observer,
                                     absl::Time deadline) {
    absl::StatusOr<Explanation> result = absl::UnknownError("no reply");
    bool decoded = false;
    const absl::Status status =
        Run(deadline, [&](grpc::ClientContext& context) {
          StreamAssembler assembler(observer);
          const auto reader = explanations->StreamExplain(&context, request);
          absl::Status damage;
          bool heard = false;
          for (v1::StreamExplainResponse part; reader->Read(&part);) {
            heard = true;
            damage = assembler.Add(std::move(part));
            if (!damage.ok()) {
              context.TryCancel();
              break;
            }
          }
          grpc::Status end = reader->Finish();
          if (!damage.ok()) {
            result = damage;
            decoded = true;
          } else if (end.ok()) {
            result = assembler.Finish();
            decoded = true;
          }
          return std::make_pair(std::move(end), !heard);
        });
    // Damage goes before the CANCELLED that ending the stream made of it.
    if (decoded) return result;
    return status;
  }
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Create(
    const ClientOptions& options) {
  absl::StatusOr<Connection> connection = Connect(options);
  if (!connection.ok()) return connection.status();
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->connection = *std::move(connection);
  const auto& channel = impl->connection.channel;
  impl->explanations = v1::ExplanationService::NewStub(channel);
  impl->models = v1::ModelService::NewStub(channel);
  impl->health = grpc::health::v1::Health::NewStub(channel);
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

absl::StatusOr<std::vector<v1::Model>> Client::ListModels() {
  v1::ListModelsResponse response;
  const absl::Status status =
      impl_->Unary(*impl_->models, &v1::ModelService::Stub::ListModels,
                   v1::ListModelsRequest(), &response, impl_->Deadline());
  if (!status.ok()) return status;
  return std::vector<v1::Model>(response.models().begin(),
                                response.models().end());
}

absl::StatusOr<v1::Model> Client::GetModel(const std::string& name) {
  return impl_->OneModel(&v1::ModelService::Stub::GetModel, name);
}

absl::StatusOr<v1::Model> Client::LoadModel(const std::string& name) {
  return impl_->OneModel(&v1::ModelService::Stub::LoadModel, name);
}

absl::StatusOr<v1::Model> Client::UnloadModel(const std::string& name) {
  return impl_->OneModel(&v1::ModelService::Stub::UnloadModel, name);
}

absl::StatusOr<std::vector<v1::Method>> Client::ListMethods() {
  v1::ListMethodsResponse response;
  const absl::Status status =
      impl_->Unary(*impl_->models, &v1::ModelService::Stub::ListMethods,
                   v1::ListMethodsRequest(), &response, impl_->Deadline());
  if (!status.ok()) return status;
  return std::vector<v1::Method>(response.methods().begin(),
                                 response.methods().end());
}

absl::StatusOr<std::string> Client::CheckHealth(const std::string& service) {
  using grpc::health::v1::Health;
  using grpc::health::v1::HealthCheckResponse;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  HealthCheckResponse response;
  const absl::Status status =
      impl_->Unary(*impl_->health, &Health::Stub::Check, request, &response,
                   impl_->Deadline());
  if (!status.ok()) return status;
  const std::string name =
      HealthCheckResponse::ServingStatus_Name(response.status());
  return name.empty() ? "UNKNOWN" : name;
}

absl::StatusOr<Explanation> Client::Explain(const v1::ExplainRequest& request) {
  const absl::Time deadline = impl_->Deadline();
  v1::ExplainResponse response;
  const absl::Status status =
      impl_->Unary(*impl_->explanations, &v1::ExplanationService::Stub::Explain,
                   request, &response, deadline);
  if (status.ok()) return DecodeResponse(std::move(response));
  if (absl::IsFailedPrecondition(status) &&
      GetErrorReport(status).reason == "REPLY_TOO_LARGE") {
    return impl_->Stream(request, {}, deadline);
  }
  return status;
}

absl::StatusOr<Explanation> Client::StreamExplain(
    const v1::ExplainRequest& request, const StreamObserver& observer) {
  return impl_->Stream(request, observer, impl_->Deadline());
}

void Client::Cancel() {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->cancelled = true;
  for (grpc::ClientContext* context : impl_->running) context->TryCancel();
  impl_->wake.notify_all();
}

}  // namespace limpid
