// SPDX-License-Identifier: Apache-2.0
#include "server/input/protobuf_reader.h"

namespace limpid {

bool ProtobufReader::Varint(uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool ProtobufReader::Fixed(size_t size) {
  if (rest_.size() < size) return false;
  number_ = 0;
  for (size_t i = 0; i < size; ++i) {
    number_ |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
  }
  rest_.remove_prefix(size);
  return true;
}

bool ProtobufReader::Value() {
  uint64_t tag = 0;
  if (!Varint(tag) || tag >> 32 != 0 || tag >> 3 == 0) return false;
  field_ = static_cast<uint32_t>(tag >> 3);
  wire_ = static_cast<Wire>(tag & 7);
  switch (wire_) {
    case Wire::kVarint:
      return Varint(number_);
    case Wire::kFixed64:
      return Fixed(8);
    case Wire::kFixed32:
      return Fixed(4);
    case Wire::kBytes: {
      uint64_t size = 0;
      if (!Varint(size) || size > rest_.size()) return false;
      bytes_ = rest_.substr(0, size);
      rest_.remove_prefix(size);
      return true;
    }
  }
  return false;  // Groups, which nobody writes any more, or no kind at all.
}

bool ProtobufReader::Next() {
  if (!ok_ || rest_.empty()) return false;
  ok_ = Value();
  return ok_;
}

}  // namespace limpid
