// SPDX-License-Identifier: Apache-2.0
//
// How gRPC runs a raw unary method whose work may be done on gRPC's own thread.
#pragma once

#include <grpcpp/impl/codegen/method_handler.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <string>
#include <utility>

#include "server/schedule/worker_pool.h"

namespace limpid {

// As the handler that generated code makes, and then, when gRPC knows the
// call's reactor and so can tell it that its caller has gone, does what the
// method has left to its thread.
class RawUnaryHandler final : public grpc::internal::MethodHandler {
 public:
  using Method = std::function<grpc::ServerUnaryReactor*(
      grpc::CallbackServerContext*, const grpc::ByteBuffer*,
      grpc::ByteBuffer*)>;

  explicit RawUnaryHandler(Method method) : handler_(std::move(method)) {}

  void RunHandler(const HandlerParameter& parameter) override;
  void* Deserialize(grpc_call* call, grpc_byte_buffer* request,
                    grpc::Status* status, void** data) override {
    return handler_.Deserialize(call, request, status, data);
  }

  // Where a method that is being run puts what is left to its thread; null on
  // threads that run none of such a handler.
  static OwnTurn* own_turn();

 private:
  grpc::internal::CallbackUnaryHandler<grpc::ByteBuffer, grpc::ByteBuffer>
      handler_;
};

// Of a method of a service of the .proto files, as Service::MarkMethod... want
// it.
int MethodIndex(const std::string& service, const std::string& method);

}  // namespace limpid
