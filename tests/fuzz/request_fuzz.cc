// SPDX-License-Identifier: Apache-2.0
//
// A request of any content is planned or refused with a code that blames its
// sender. The first byte says how the rest is read: 0, as a message on the
// wire; else as choices of fields and values, so that every input is a message.
#include <google/protobuf/message.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "limpid/v1/explanation.pb.h"
#include "server/rpc/validate.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_engine.h"

namespace limpid {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Choices from bytes; zeros when they have run out.
class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  bool empty() const { return left_ == 0; }
  uint8_t Byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  int64_t Number() {
    // Small numbers, limits of types, anything.
    switch (Byte() % 4) {
      case 0:
        return Byte();
      case 1:
        return -static_cast<int64_t>(Byte());
      case 2: {
        constexpr int64_t kEdges[] = {INT32_MAX, INT32_MIN, INT64_MAX,
                                      INT64_MIN, 1 << 20,   4097};
        return kEdges[Byte() % std::size(kEdges)];
      }
      default: {
        uint64_t bits = 0;
        for (int i = 0; i < 8; ++i) bits = bits << 8 | Byte();
        return static_cast<int64_t>(bits);
      }
    }
  }
  std::string Text() {
    static const char* const kWords[] = {
        "a", "b", "raw-attention", "integrated-gradients", "\xFF", ""};
    const uint8_t kind = Byte();
    if (kind % 2 == 0) return kWords[kind / 2 % std::size(kWords)];
    std::string text;
    for (int i = kind % 32; i > 0; --i) {
      text += static_cast<char>(Byte());
    }
    return text;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

void Fill(Choices& from, int depth, Message& message);

// Sets a field, or adds to a repeated one.
void SetField(Choices& from, int depth, const FieldDescriptor& field,
              Message& message) {
  const Reflection& r = *message.GetReflection();
  const bool many = field.is_repeated();
  switch (field.cpp_type()) {
#define LIMPID_SET(KIND, NAME, VALUE)            \
  case FieldDescriptor::CPPTYPE_##KIND:          \
    many ? r.Add##NAME(&message, &field, VALUE)  \
         : r.Set##NAME(&message, &field, VALUE); \
    break;
    LIMPID_SET(INT32, Int32, static_cast<int32_t>(from.Number()))
    LIMPID_SET(INT64, Int64, from.Number())
    LIMPID_SET(UINT32, UInt32, static_cast<uint32_t>(from.Number()))
    LIMPID_SET(UINT64, UInt64, static_cast<uint64_t>(from.Number()))
    LIMPID_SET(DOUBLE, Double, static_cast<double>(from.Number()) / 7)
    LIMPID_SET(FLOAT, Float, static_cast<float>(from.Number()) / 7)
    LIMPID_SET(BOOL, Bool, from.Byte() % 2 == 1)
    LIMPID_SET(ENUM, EnumValue, static_cast<int>(from.Byte() % 16))
    LIMPID_SET(STRING, String, from.Text())
#undef LIMPID_SET
    case FieldDescriptor::CPPTYPE_MESSAGE:
      Fill(from, depth + 1,
           many ? *r.AddMessage(&message, &field)
                : *r.MutableMessage(&message, &field));
  }
}

void Fill(Choices& from, int depth, Message& message) {
  const auto& type = *message.GetDescriptor();
  if (depth > 6 || type.field_count() == 0) return;
  for (int i = from.Byte() % 8; i > 0 && !from.empty(); --i) {
    SetField(from, depth, *type.field(from.Byte() % type.field_count()),
             message);
  }
}

bool BlamesTheSender(const absl::Status& status) {
  const ErrorDetails details = GetErrorDetails(status);
  return !details.reason.empty() && (absl::IsInvalidArgument(status) ||
                                     absl::IsFailedPrecondition(status));
}

void Judge(const v1::ExplainRequest& message) {
  static const std::vector<MethodSpec> methods = testing::FakeMethods();
  static const testing::FakeEngine engine;
  static const auto model = std::make_shared<testing::FakeModel>("a");
  const ValidatedRequest request = Validate(message, methods);
  const absl::Status status = request.ToStatus();
  LIMPID_FUZZ_CHECK(status.ok() || BlamesTheSender(status));
  for (const FieldViolation& violation : request.violations) {
    LIMPID_FUZZ_CHECK(!violation.field.empty());
    LIMPID_FUZZ_CHECK(!violation.description.empty());
  }
  const auto plan = engine.MakePlan(request.request, model);
  const absl::Status merged = MergeStatus(request, plan.status());
  LIMPID_FUZZ_CHECK(merged.ok() || BlamesTheSender(merged));
  // What is wrong by itself stays wrong.
  LIMPID_FUZZ_CHECK(status.ok() || !merged.ok());
}

}  // namespace
}  // namespace limpid

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  limpid::v1::ExplainRequest message;
  if (data[0] == 0) {
    if (!message.ParseFromArray(data + 1, static_cast<int>(size) - 1)) return 0;
  } else {
    limpid::Choices choices(data + 1, size - 1);
    limpid::Fill(choices, 0, message);
  }
  limpid::Judge(message);
  return 0;
}
