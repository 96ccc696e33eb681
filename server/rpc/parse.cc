// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/parse.h"

#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/safe_text.h"

namespace limpid {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

constexpr int kMaxDepth = 32;
constexpr int kBlockBytes = 1 << 20;

// Reads bytes field by field without regard to types, which tells which string
// the typed reader stumbled over.
void FindBadStrings(const UnknownFieldSet& fields, const Descriptor& message,
                    const std::string& prefix, int depth,
                    Violations& violations) {
  for (int i = 0; i < fields.field_count() && depth < kMaxDepth; ++i) {
    const UnknownField& field = fields.field(i);
    const FieldDescriptor* const known =
        message.FindFieldByNumber(field.number());
    if (known == nullptr ||
        field.type() != UnknownField::TYPE_LENGTH_DELIMITED) {
      continue;
    }
    const std::string path = prefix + known->name();
    if (known->type() == FieldDescriptor::TYPE_STRING) {
      const size_t bad = FindInvalidUtf8(field.length_delimited());
      if (bad != absl::string_view::npos) {
        violations.Add(path, absl::StrCat("is not UTF-8: the byte at offset ",
                                          bad, " starts no character"));
      }
    } else if (known->type() == FieldDescriptor::TYPE_MESSAGE) {
      UnknownFieldSet inner;
      if (inner.ParseFromString(field.length_delimited())) {
        FindBadStrings(inner, *known->message_type(), path + ".", depth + 1,
                       violations);
      }
    }
  }
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes,
                          google::protobuf::Message& message) {
  grpc::ByteBuffer copy(bytes);  // shares the slices; the reader wants its own
  {
    grpc::ProtoBufferReader reader(&copy);
    if (reader.status().ok() && message.ParseFromZeroCopyStream(&reader)) {
      return absl::OkStatus();
    }
  }
  Violations violations;
  grpc::ByteBuffer again(bytes);
  grpc::ProtoBufferReader reader(&again);
  UnknownFieldSet fields;
  if (reader.status().ok() && fields.ParseFromZeroCopyStream(&reader)) {
    FindBadStrings(fields, *message.GetDescriptor(), "", 0, violations);
  }
  LIMPID_RETURN_IF_ERROR(violations.ToStatus("REQUEST_UNREADABLE"));
  return MakeError(
      absl::StatusCode::kInvalidArgument, "REQUEST_UNREADABLE",
      absl::StrCat("the request's bytes are no ",
                   message.GetDescriptor()->full_name(), " message"));
}

absl::Status SerializeMessage(const google::protobuf::Message& message,
                              grpc::ByteBuffer& bytes) {
  const size_t size = message.ByteSizeLong();
  if (size > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return MakeError(absl::StatusCode::kInternal, "REPLY_NOT_SERIALIZABLE",
                     "the reply is larger than a message can be");
  }
  grpc::ProtoBufferWriter writer(&bytes, kBlockBytes, static_cast<int>(size));
  if (message.SerializeToZeroCopyStream(&writer)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInternal, "REPLY_NOT_SERIALIZABLE",
                   "the reply could not be packed");
}

}  // namespace limpid
