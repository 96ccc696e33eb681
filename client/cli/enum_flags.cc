// SPDX-License-Identifier: Apache-2.0
//
// Flags whose names come from the API itself: enums and options of methods. A
// field that is added to the proto can be written at once.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <functional>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/flag_values.h"

namespace limpid::cli {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;

// "mean-abs" for CHANNEL_REDUCTION_MEAN_ABS: values carry the name of their
// type, which ends where that of the rejected zero says UNSPECIFIED.
std::string WrittenName(const EnumDescriptor* type, int index) {
  const std::string zero(type->value(0)->name());
  const size_t prefix = zero.size() - std::string("UNSPECIFIED").size();
  const std::string name(type->value(index)->name());
  return absl::StrReplaceAll(absl::AsciiStrToLower(name.substr(prefix)),
                             {{"_", "-"}});
}

std::string Dashed(const FieldDescriptor* field) {
  return absl::StrReplaceAll(std::string(field->name()), {{"_", "-"}});
}

// Sets a scalar field from text.
absl::Status SetScalar(v1::MethodOptions& options, const FieldDescriptor* field,
                       const std::string& text) {
  const Reflection* reflection = options.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      const absl::StatusOr<int32_t> value = ParseInt32(text);
      if (!value.ok()) return value.status();
      reflection->SetInt32(&options, field, *value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      const absl::StatusOr<int64_t> value = ParseInt64(text);
      if (!value.ok()) return value.status();
      reflection->SetInt64(&options, field, *value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      const absl::StatusOr<bool> value = ParseBool(text);
      if (!value.ok()) return value.status();
      reflection->SetBool(&options, field, *value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const absl::StatusOr<int> value = ParseEnum(field->enum_type(), text);
      if (!value.ok()) return value.status();
      reflection->SetEnumValue(&options, field, *value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value = 0;
      if (!absl::SimpleAtod(text, &value)) {
        return absl::InvalidArgumentError(
            absl::StrCat("\"", text, "\" is not a number"));
      }
      reflection->SetDouble(&options, field, value);
      return absl::OkStatus();
    }
    default:
      return absl::InvalidArgumentError("can't be written on a command line");
  }
}

}  // namespace

absl::StatusOr<int> ParseEnum(const EnumDescriptor* type,
                              const std::string& text) {
  for (int i = 1; i < type->value_count(); ++i) {
    if (WrittenName(type, i) == text) return type->value(i)->number();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is none of ", EnumNames(type)));
}

std::string EnumNames(const EnumDescriptor* type) {
  std::vector<std::string> names;
  for (int i = 1; i < type->value_count(); ++i) {
    names.push_back(WrittenName(type, i));
  }
  return absl::StrJoin(names, ", ");
}

std::string MethodOptionNames() {
  std::vector<std::string> names;
  const auto* type = v1::MethodOptions::descriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    names.push_back(Dashed(type->field(i)));
  }
  return absl::StrJoin(names, ", ");
}

absl::Status SetMethodOption(const std::string& name_value,
                             v1::MethodOptions& options) {
  const size_t equals = name_value.find('=');
  const std::string name = name_value.substr(0, equals);
  const FieldDescriptor* field =
      v1::MethodOptions::descriptor()->FindFieldByName(
          absl::StrReplaceAll(name, {{"-", "_"}}));
  if (equals == std::string::npos || field == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", name_value, "\" is not NAME=VALUE with one of ",
                     MethodOptionNames()));
  }
  const std::string text = name_value.substr(equals + 1);
  absl::Status status;
  if (field->name() == "baseline") {
    absl::StatusOr<v1::Baseline> baseline = ParseBaseline(text);
    status = baseline.status();
    if (baseline.ok()) *options.mutable_baseline() = *std::move(baseline);
  } else {
    status = SetScalar(options, field, text);
  }
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", status.message()));
}

}  // namespace limpid::cli
