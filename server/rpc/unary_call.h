// SPDX-License-Identifier: Apache-2.0
//
// A unary call that is answered from any thread, once.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <functional>
#include <utility>

#include "server/rpc/call.h"

namespace limpid {

// Belongs to gRPC once its handler has returned it, and deletes itself when the
// call is over. Exactly one of Reply, Fail and ReplyBytes must be called, by
// whoever works on the call; a second one is ignored. After that the object may
// be gone.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(const CallServices& services, const RpcName& rpc,
            grpc::CallbackServerContext& context, grpc::ByteBuffer& response)
      : call_(services, rpc, context), response_(response) {}

  Call& call() { return call_; }

  // Packs and sends a reply; what goes wrong with that is sent instead.
  void Reply(const google::protobuf::Message& message);
  void Fail(const absl::Status& status);

  // Runs a part of the handler; what it throws becomes INTERNAL.
  void Guard(const std::function<void()>& body);

 private:
  void OnCancel() override { call_.NoteClientGone(); }
  void OnDone() override { delete this; }
  ~UnaryCall() override = default;

  Call call_;
  grpc::ByteBuffer& response_;
  std::atomic<bool> answered_{false};
};

// The status for an exception that is being handled.
absl::Status StatusOfException();

}  // namespace limpid
