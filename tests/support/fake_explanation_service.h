// SPDX-License-Identifier: Apache-2.0
//
// A server with the services of the API whose every answer is set by the test,
// for tests of clients: also answers that no honest server gives.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>
#include <grpcpp/support/sync_stream.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "limpid/v1/explanation.grpc.pb.h"
#include "limpid/v1/model.grpc.pb.h"

namespace limpid::testing {

using StreamWriter = grpc::ServerWriter<v1::StreamExplainResponse>;

// Handlers are called in gRPC's threads; an empty one answers UNIMPLEMENTED.
struct FakeHandlers {
  std::function<grpc::Status(grpc::ServerContext&, const v1::ExplainRequest&,
                             v1::ExplainResponse&)>
      explain;
  std::function<grpc::Status(grpc::ServerContext&, const v1::ExplainRequest&,
                             StreamWriter&)>
      stream;
  // Answers GetModel, LoadModel and UnloadModel.
  std::function<grpc::Status(const std::string& name, v1::Model&)> model;
  std::vector<v1::Model> models;
  std::vector<v1::Method> methods;
};

// Serves until it is destroyed, on a free port of the loopback interface.
class FakeServer {
 public:
  explicit FakeServer(FakeHandlers handlers);
  ~FakeServer();

  const std::string& address() const { return address_; }

 private:
  class Explanations;
  class Models;
  std::unique_ptr<Explanations> explanations_;
  std::unique_ptr<Models> models_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// A float32 tensor as an honest server sends it.
v1::Tensor MakeTensor(const std::string& name, std::vector<int64_t> shape,
                      const std::vector<float>& values);
// An int64 tensor.
v1::Tensor MakeIds(const std::string& name, const std::vector<int64_t>& ids);

// A reply about the text "A good film": three tokens, one layer.
v1::ExplainResponse MakeResponse();

// The same reply in parts; tensors are cut into chunks of `chunk_bytes`.
std::vector<v1::StreamExplainResponse> MakeStream(
    const v1::ExplainResponse& response, size_t chunk_bytes);

// A status with the details that the API promises.
grpc::Status MakeError(
    grpc::StatusCode code, const std::string& reason,
    const std::string& message,
    const std::map<std::string, std::string>& violations = {},
    double retry_seconds = -1);

}  // namespace limpid::testing
