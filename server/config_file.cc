// SPDX-License-Identifier: Apache-2.0
#include "server/config_file.h"

#include <google/protobuf/util/json_util.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Json = nlohmann::json;

const FieldDescriptor* FindField(const Descriptor& message,
                                 const std::string& name) {
  if (const auto* field = message.FindFieldByName(name)) return field;
  for (int i = 0; i < message.field_count(); ++i) {
    if (message.field(i)->json_name() == name) return message.field(i);
  }
  return nullptr;
}

std::string AllowedNames(const Descriptor& message) {
  std::string names;
  for (int i = 0; i < message.field_count(); ++i) {
    absl::StrAppend(&names, i == 0 ? "" : ", ", message.field(i)->name());
  }
  return names;
}

absl::string_view Expected(const FieldDescriptor& field) {
  if (field.is_repeated()) return "a list of strings";
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
      return "a whole number";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return "an object";
    default:
      return "a string";
  }
}

// Protobuf's reader stops at the first mistake, so it gets the fields one by
// one.
void ReadObject(const Json& object, const std::string& prefix, Message& message,
                Violations& mistakes) {
  const Descriptor& descriptor = *message.GetDescriptor();
  for (const auto& [name, value] : object.items()) {
    const FieldDescriptor* const field = FindField(descriptor, name);
    const std::string path = prefix + (field == nullptr ? name : field->name());
    if (field == nullptr) {
      mistakes.Add(path, absl::StrCat("unknown field; allowed here: ",
                                      AllowedNames(descriptor)));
      continue;
    }
    if (value.is_null()) continue;  // as if it were left out
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (value.is_object()) {
        ReadObject(value, path + ".",
                   *message.GetReflection()->MutableMessage(&message, field),
                   mistakes);
      } else {
        mistakes.Add(path,
                     absl::StrCat(value.dump(), " is not ", Expected(*field)));
      }
      continue;
    }
    const std::unique_ptr<Message> one(message.New());
    Json single = Json::object();
    single[field->name()] = value;
    if (google::protobuf::util::JsonStringToMessage(single.dump(), one.get())
            .ok()) {
      message.MergeFrom(*one);
    } else {
      mistakes.Add(path,
                   absl::StrCat(value.dump(), " is not ", Expected(*field)));
    }
  }
}

}  // namespace

void ParseConfigJson(const std::string& json, const std::string& file,
                     config::v1::ServerConfig& config, Violations& mistakes) {
  try {
    const Json root = Json::parse(json, nullptr, true, true);
    if (!root.is_object()) {
      mistakes.Add(file, "holds no JSON object");
      return;
    }
    ReadObject(root, "", config, mistakes);
  } catch (const Json::exception& e) {
    mistakes.Add(file, absl::StrCat("is no valid JSON: ", e.what()));
  }
}

void ReadConfigFile(const std::string& path, config::v1::ServerConfig& config,
                    Violations& mistakes) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  // Opening a folder succeeds; reading it does not.
  if (!in || !(text << in.rdbuf())) {
    mistakes.Add("--config",
                 absl::StrCat("can't read ", path, ": ", std::strerror(errno)));
    return;
  }
  ParseConfigJson(text.str(), path, config, mistakes);
}

std::string ConfigToJson(const config::v1::ServerConfig& config) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  // Fails for types that the schema does not use only.
  (void)google::protobuf::util::MessageToJsonString(config, &json, options);
  return json;
}

}  // namespace limpid
