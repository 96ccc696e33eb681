// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/field_path.h"

#include <google/protobuf/descriptor.h>

#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/rpc/safe_text.h"

namespace limpid {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::optional<int64_t> AsInteger(const ParameterValue& value) {
  if (const auto* number = std::get_if<int64_t>(&value)) return *number;
  int64_t parsed = 0;
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && absl::SimpleAtoi(*text, &parsed)) return parsed;
  return std::nullopt;
}

std::optional<double> AsDouble(const ParameterValue& value) {
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto integer = AsInteger(value)) {
    return static_cast<double>(*integer);
  }
  double parsed = 0;
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && absl::SimpleAtod(*text, &parsed)) return parsed;
  return std::nullopt;
}

std::string SetInteger(const FieldDescriptor& field, int64_t least,
                       int64_t most, const ParameterValue& value,
                       Message& message) {
  const auto number = AsInteger(value);
  if (!number || *number < least || *number > most) {
    return absl::StrCat("must be an integer from ", least, " to ", most);
  }
  const auto& reflection = *message.GetReflection();
  field.cpp_type() == FieldDescriptor::CPPTYPE_INT32
      ? reflection.SetInt32(&message, &field, static_cast<int32_t>(*number))
      : reflection.SetInt64(&message, &field, *number);
  return "";
}

std::string SetEnum(const FieldDescriptor& field, const ParameterValue& value,
                    Message& message) {
  const EnumDescriptor& type = *field.enum_type();
  const auto* name = std::get_if<std::string>(&value);
  const EnumValueDescriptor* const known =
      name == nullptr ? nullptr : type.FindValueByName(*name);
  if (known != nullptr) {
    message.GetReflection()->SetEnum(&message, &field, known);
    return "";
  }
  std::vector<std::string> names;
  for (int i = 1; i < type.value_count(); ++i) {
    names.push_back(type.value(i)->name());
  }
  return absl::StrCat("must be one of ", absl::StrJoin(names, ", "));
}

// A message as a value: only a choice without content has one.
std::string SetChoice(const FieldDescriptor& field, const ParameterValue& value,
                      Message& message) {
  if (field.message_type()->field_count() > 0) {
    return "has fields of its own; name one of them";
  }
  const auto* chosen = std::get_if<bool>(&value);
  if (chosen == nullptr || !*chosen) return "must be true";
  message.GetReflection()->MutableMessage(&message, &field);
  return "";
}

std::string SetField(const FieldDescriptor& field, const ParameterValue& value,
                     Message& message) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL: {
      const auto* truth = std::get_if<bool>(&value);
      if (truth == nullptr) return "must be true or false";
      reflection.SetBool(&message, &field, *truth);
      return "";
    }
    case FieldDescriptor::CPPTYPE_INT32:
      return SetInteger(field, std::numeric_limits<int32_t>::min(),
                        std::numeric_limits<int32_t>::max(), value, message);
    case FieldDescriptor::CPPTYPE_INT64:
      return SetInteger(field, std::numeric_limits<int64_t>::min(),
                        std::numeric_limits<int64_t>::max(), value, message);
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      const auto number = AsDouble(value);
      if (!number) return "must be a number";
      reflection.SetDouble(&message, &field, *number);
      return "";
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const auto* text = std::get_if<std::string>(&value);
      if (text == nullptr) return "must be text";
      reflection.SetString(&message, &field, *text);
      return "";
    }
    case FieldDescriptor::CPPTYPE_ENUM:
      return SetEnum(field, value, message);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return SetChoice(field, value, message);
    default:
      return "can't be set by a parameter";
  }
}

}  // namespace

std::string SetFieldByPath(absl::string_view path, const ParameterValue& value,
                           Message& message) {
  Message* here = &message;
  const std::vector<std::string> names = absl::StrSplit(path, '.');
  for (size_t i = 0; i < names.size(); ++i) {
    const FieldDescriptor* const field =
        here->GetDescriptor()->FindFieldByName(names[i]);
    if (field == nullptr) {
      return absl::StrCat(here->GetDescriptor()->full_name(),
                          " has no field \"", SafeText(names[i]), "\"");
    }
    if (field->is_repeated()) return "is a list; a parameter can't set one";
    const auto& reflection = *here->GetReflection();
    if (const auto* choice = field->real_containing_oneof()) {
      const FieldDescriptor* const other =
          reflection.GetOneofFieldDescriptor(*here, choice);
      if (other != nullptr && other != field) {
        return absl::StrCat("another kind is given: ", other->name());
      }
    }
    if (i + 1 == names.size()) return SetField(*field, value, *here);
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      return absl::StrCat("\"", field->name(), "\" has no fields");
    }
    here = reflection.MutableMessage(here, field);
  }
  return "";
}

}  // namespace limpid
