// SPDX-License-Identifier: Apache-2.0
//
// Messages out of and into the raw bytes of a call. gRPC's own parsing answers
// UNIMPLEMENTED without a word to bytes that are no message.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include "server/base/status.h"

namespace limpid {

// INVALID_ARGUMENT, reason REQUEST_UNREADABLE; fields whose text is not UTF-8
// are named with the offset of the first bad byte.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes,
                          google::protobuf::Message& message);

// INTERNAL if the message is too large for Protobuf (2 GiB).
absl::Status SerializeMessage(const google::protobuf::Message& message,
                              grpc::ByteBuffer& bytes);

}  // namespace limpid
