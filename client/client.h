// SPDX-License-Identifier: Apache-2.0
//
// The C++ client of a Limpid server: one header to start with.
//
//   limpid::ClientOptions options;
//   options.target = "127.0.0.1:50051";
//   limpid::Client client(options);
//   limpid::v1::ExplainRequest request;
//   request.set_model("sentiment-mamba");
//   request.mutable_input()->set_text("A gorgeous, witty, seductive movie.");
//   absl::StatusOr<limpid::Explanation> explanation = client.Explain(request);
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "limpid/v1/explanation.pb.h"
#include "limpid/v1/model.pb.h"

namespace limpid {

// How a server is reached.
struct ClientOptions {
  std::string target = "127.0.0.1:50051";  // HOST:PORT
  std::string ca_file;     // PEM; not empty: TLS, server verified against it
  std::string token_file;  // not empty: its first line is sent as bearer token
  absl::Duration deadline = absl::Seconds(30);  // of each call
  // Tries per call in all; only UNAVAILABLE is tried again, after the time that
  // the server names or an exponential back-off.
  int max_attempts = 3;
  // Sent as x-request-id with every call when not empty.
  std::string request_id;
};

// An explanation with its tensors put together and checked: every byte has come
// and every checksum fits.
struct Explanation {
  v1::ExplanationHeader header;
  v1::ExplanationSummary summary;
  // By name; `data` holds the packed elements as header.layout says.
  std::map<std::string, v1::Tensor> tensors;
};

// Told of each part of a streamed explanation as it comes; all may be empty.
struct StreamObserver {
  std::function<void(const v1::ExplanationHeader&)> on_header;
  std::function<void(const v1::Progress&)> on_progress;
  std::function<void(const v1::Tensor&)> on_tensor;  // complete and checked
};

// What an error carries beside its code: google.rpc details decoded. Gateways
// send none, so every part is optional.
struct ErrorReport {
  std::string reason;
  std::map<std::string, std::string> metadata;
  std::vector<std::pair<std::string, std::string>> violations;  // field, what
  absl::optional<absl::Duration> retry_after;
  std::string request_id;
};
// The report of a status that a Client returned.
ErrorReport GetErrorReport(const absl::Status& status);

// A connection to a server. Thread-safe; calls block their thread. Every call
// ends within ClientOptions::deadline with the server's status, DATA_LOSS if a
// tensor is damaged or missing, or CANCELLED after Cancel().
class Client {
 public:
  explicit Client(ClientOptions options);
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
  // The streamed call.
  absl::StatusOr<Explanation> StreamExplain(const v1::ExplainRequest& request,
                                            const StreamObserver& observer);

  // Cancels all calls of this client, running and future. Async-signal-unsafe.
  void Cancel();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace limpid
