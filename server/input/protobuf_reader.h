// SPDX-License-Identifier: Apache-2.0
//
// Reads the fields of one serialised protobuf message. Small on purpose: the
// protobuf library belongs to the RPC layer, and this side must not meet it.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace limpid {

class ProtobufReader {
 public:
  enum class Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  // `message` must outlive this object and what is read from it.
  explicit ProtobufReader(absl::string_view message) : rest_(message) {}

  // Goes to the next field. False at the message's end, or at the first byte
  // that makes no sense: then ok() is false.
  bool Next();
  bool ok() const { return ok_; }

  // Number of the field, and how it is stored.
  uint32_t field() const { return field_; }
  Wire wire() const { return wire_; }
  // The value: of kBytes, or of the others.
  absl::string_view bytes() const { return bytes_; }
  uint64_t number() const { return number_; }

 private:
  bool Varint(uint64_t& value);
  bool Fixed(size_t size);
  bool Value();

  absl::string_view rest_;
  bool ok_ = true;
  uint32_t field_ = 0;
  Wire wire_ = Wire::kVarint;
  absl::string_view bytes_;
  uint64_t number_ = 0;
};

}  // namespace limpid
