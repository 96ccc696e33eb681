// SPDX-License-Identifier: Apache-2.0
//
// The C++ client of a Limpid server: one header to start with.
//
//   limpid::ClientOptions options;
//   options.target = "127.0.0.1:50051";
//   auto client = limpid::Client::Create(options);
//   if (!client.ok()) return client.status();
//   limpid::v1::ExplainRequest request;
//   request.set_model("sentiment-mamba");
//   request.mutable_input()->set_text("A gorgeous, witty, seductive movie.");
//   absl::StatusOr<limpid::Explanation> explanation =
//       (*client)->Explain(request);
//
// client/tensor_codec.h unpacks tensors, client/error_report.h errors.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/error_report.h"
#include "client/explanation.h"
#include "client/retry.h"
#include "limpid/v1/explanation.pb.h"
#include "limpid/v1/model.pb.h"

namespace limpid {

// How a server is reached.
struct ClientOptions {
  std::string target = "127.0.0.1:50051";  // HOST:PORT
  std::string ca_file;  // PEM; not empty: TLS, server verified against it
  // PEM, both or none: what the client shows to a server that asks for it.
  std::string certificate_file, key_file;
  std::string token_file;  // not empty: its first line is sent as bearer token
  // Of each call with all its tries; told to the server.
  // absl::InfiniteDuration() for none.
  absl::Duration deadline = absl::Seconds(30);
  RetryPolicy retry;  // which failed calls are tried again, and when
  // Sent as x-request-id with every call; empty: a random one for each call.
  std::string request_id;
};

struct ClientState;

// A connection to a server. Thread-safe; calls block their thread, but for
// ExplainAsync. Every call ends within ClientOptions::deadline with the
// server's status, DATA_LOSS if a reply is damaged or incomplete, or CANCELLED
// after Cancel().
class Client {
 public:
  // INVALID_ARGUMENT if a file of the options can't be used. Does not connect:
  // a server that is not there shows in the first call, as UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<Client>> Create(
      const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  absl::StatusOr<std::vector<v1::Model>> ListModels();
  absl::StatusOr<v1::Model> GetModel(const std::string& name);
  absl::StatusOr<v1::Model> LoadModel(const std::string& name);
  absl::StatusOr<v1::Model> UnloadModel(const std::string& name);
  absl::StatusOr<std::vector<v1::Method>> ListMethods();
  // "SERVING", "NOT_SERVING", ...; `service` may be empty or a model's name.
  absl::StatusOr<std::string> CheckHealth(const std::string& service);

  // The unary call; where the reply would be too large for it (REPLY_TOO_LARGE)
  // the streamed one.
  absl::StatusOr<Explanation> Explain(const v1::ExplainRequest& request);
  // The streamed call. Tried again only as long as the observer has heard
  // nothing.
  absl::StatusOr<Explanation> StreamExplain(const v1::ExplainRequest& request,
                                            const StreamObserver& observer);

  // Explain without blocking: returns at once and calls `done` exactly once,
  // from another thread, with what Explain would have returned. `done` must
  // neither block nor destroy the client. Any number of calls may run at a
  // time; the destructor cancels those that still run and waits for their
  // `done`.
  void ExplainAsync(v1::ExplainRequest request,
                    std::function<void(absl::StatusOr<Explanation>)> done);

  // Cancels all calls of this client, running and future. From any thread, but
  // not from a signal handler.
  void Cancel();

 private:
  explicit Client(std::unique_ptr<ClientState> state);
  std::unique_ptr<ClientState> state_;
};

}  // namespace limpid
