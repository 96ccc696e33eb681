// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/raw_unary_handler.h"

#include <google/protobuf/descriptor.h>

namespace limpid {
namespace {

thread_local OwnTurn* current_turn = nullptr;

}  // namespace

void RawUnaryHandler::RunHandler(const HandlerParameter& parameter) {
  OwnTurn turn;
  current_turn = &turn;
  handler_.RunHandler(parameter);
  current_turn = nullptr;
  // The call, and this with its server, may be gone unless there is a turn.
  if (turn) turn();
}

OwnTurn* RawUnaryHandler::own_turn() { return current_turn; }

int MethodIndex(const std::string& service, const std::string& method) {
  return google::protobuf::DescriptorPool::generated_pool()
      ->FindServiceByName(service)
      ->FindMethodByName(method)
      ->index();
}

}  // namespace limpid
