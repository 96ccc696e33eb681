// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "limpid/config/v1/server_config.pb.h"
#include "server/config_file.h"
#include "tests/support/certificates.h"
#include "tests/support/temporary_repository.h"

namespace limpid {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class ConfigTest : public ::testing::Test {
 protected:
  absl::StatusOr<CommandLine> Parse(std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"--model-repository", folder_.path()});
    return ParseCommandLine(flags);
  }
  absl::StatusOr<CommandLine> ParseFile(const std::string& json,
                                        std::vector<std::string> flags = {}) {
    folder_.AddFile("config.json", json);
    flags.insert(flags.begin(), {"--config", folder_.path() + "/config.json"});
    return Parse(flags);
  }
  static std::vector<std::string> Fields(const absl::Status& status) {
    std::vector<std::string> fields;
    for (const auto& v : GetErrorDetails(status).violations) {
      fields.push_back(v.field);
    }
    return fields;
  }

  testing::TemporaryRepository folder_;
};

TEST_F(ConfigTest, DefaultsAreThoseOfTheSchema) {
  const auto line = Parse({});
  ASSERT_TRUE(line.ok()) << line.status();
  const Settings& s = line->settings;
  EXPECT_EQ(s.listen, "127.0.0.1:0");
  EXPECT_EQ(s.metrics, "127.0.0.1:0");
  EXPECT_EQ(s.device, "auto");
  EXPECT_TRUE(s.reflection);
  EXPECT_EQ(s.drain, absl::Seconds(10));
  EXPECT_EQ(s.max_tokens, 4096);
  EXPECT_EQ(s.max_queue_size, 256);
}

TEST_F(ConfigTest, FlagsOverrideTheFile) {
  const auto line = ParseFile(
      R"({"listen": "127.0.0.1:1", "metrics": "off", "drainSeconds": 2.5,
          "limits": {"max_tokens": 7, "max_request_bytes": "2048"},
          "log": {"format": "text"}, "startup_models": ["a"],
          "connections": {"trusted_proxies": ["10.0.0.0/8", "::1"]}})",
      {"--listen", "127.0.0.1:2"});
  ASSERT_TRUE(line.ok()) << line.status();
  const Settings& s = line->settings;
  EXPECT_EQ(s.listen, "127.0.0.1:2");
  EXPECT_FALSE(s.metrics.has_value());
  EXPECT_EQ(s.drain, absl::Seconds(2.5));
  EXPECT_EQ(s.max_tokens, 7);
  EXPECT_EQ(s.max_request_bytes, 2048);
  EXPECT_EQ(s.log_format, "text");
  EXPECT_EQ(s.startup_models, std::vector<std::string>{"a"});
  ASSERT_EQ(s.trusted_proxies.size(), 2u);
  EXPECT_EQ(s.trusted_proxies[1].text(), "::1");
}

TEST_F(ConfigTest, BatchesDependOnTheDeviceUnlessTheyAreSet) {
  const auto defaults = Parse({});
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  const BatchLimits on_cpu = BatchingOn(defaults->settings, {"cpu"});
  EXPECT_EQ(on_cpu.max_size, 1);
  EXPECT_EQ(on_cpu.max_positions, 256);
  EXPECT_EQ(on_cpu.max_wait, absl::ZeroDuration());
  const BatchLimits on_gpu = BatchingOn(defaults->settings, {"cuda:0"});
  EXPECT_EQ(on_gpu.max_size, 16);
  EXPECT_EQ(on_gpu.max_positions, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(on_gpu.max_wait, absl::Milliseconds(2));
  EXPECT_EQ(on_gpu.max_seconds, 1);
  const auto set = ParseFile(
      R"({"batching": {"max_batch_size": 3, "max_wait_milliseconds": 0.5,
                       "max_batch_seconds": 2, "max_batch_tokens": 99}})");
  ASSERT_TRUE(set.ok()) << set.status();
  for (const char* device : {"cpu", "cuda:0"}) {
    const BatchLimits limits = BatchingOn(set->settings, {device});
    EXPECT_EQ(limits.max_size, 3);
    EXPECT_EQ(limits.max_positions, 99);
    EXPECT_EQ(limits.max_wait, absl::Microseconds(500));
    EXPECT_EQ(limits.max_seconds, 2);
  }
  EXPECT_THAT(Fields(ParseFile(
                         R"({"batching": {"max_batch_size": 0,
                                  "max_wait_milliseconds": -1,
                                  "max_batch_seconds": 0}})")
                         .status()),
              UnorderedElementsAre("batching.max_batch_size",
                                   "batching.max_wait_milliseconds",
                                   "batching.max_batch_seconds"));
}

TEST_F(ConfigTest, EveryMistakeIsNamed) {
  const auto line = ParseFile(
      R"({"lissten": "x", "drain_seconds": 15, "reflection": "maybe",
          "limits": {"max_tokens": 0, "speed": 1}, "compute": 3,
          "log": {"level": "loud"},
          "connections": {"trusted_proxies": ["::1", "10.0.0.1/8"]}})",
      {"--device", "cuda:0,0", "--metrics", "here", "--sideways", "word",
       "--health"});
  EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      Fields(line.status()),
      UnorderedElementsAre(
          "lissten", "drain_seconds", "reflection", "limits.max_tokens",
          "limits.speed", "compute", "log.level", "connections.trusted_proxies",
          "--device", "--metrics", "--sideways", "word", "--health"));
  EXPECT_THAT(std::string(line.status().message()),
              HasSubstr("names device 0 twice"));
}

TEST_F(ConfigTest, FilesThatCannotBeReadAreMistakes) {
  EXPECT_EQ(Fields(Parse({"--config", "/no/such/file"}).status()),
            std::vector<std::string>{"--config"});
  EXPECT_EQ(Fields(Parse({"--config", folder_.path()}).status()),
            std::vector<std::string>{"--config"});
  EXPECT_FALSE(ParseFile("{").ok());
  EXPECT_FALSE(ParseFile("[]").ok());
}

TEST_F(ConfigTest, RepositoryIsRequiredAndMustBeAFolder) {
  EXPECT_EQ(Fields(ParseCommandLine({}).status()),
            std::vector<std::string>{"model_repository"});
  EXPECT_EQ(
      Fields(ParseCommandLine({"--model-repository", "/nowhere"}).status()),
      std::vector<std::string>{"--model-repository"});
}

TEST_F(ConfigTest, PlainTextBeyondLoopbackMustBeAllowed) {
  for (const char* flag : {"--listen", "--metrics"}) {
    EXPECT_EQ(Fields(Parse({flag, "0.0.0.0:0"}).status()),
              std::vector<std::string>{flag});
    EXPECT_TRUE(Parse({flag, "0.0.0.0:0", "--allow-plaintext"}).ok());
    EXPECT_TRUE(Parse({flag, "[::1]:0"}).ok());
    EXPECT_TRUE(Parse({flag, "localhost:0"}).ok());
  }
  EXPECT_TRUE(Parse({"--health", "0.0.0.0:0"}).ok());
}

TEST_F(ConfigTest, DevicesAreNamesOfOne) {
  for (const char* device :
       {"auto", "cpu", "cuda", "cuda:3", "cuda:0,1", "cpu:0,1"}) {
    EXPECT_TRUE(Parse({"--device", device}).ok()) << device;
  }
  for (const char* device : {"gpu", "cuda:", "cuda:x", "cuda:0,", "cuda:1,1",
                             "cuda:64", "cuda:-1", "auto:0", "CPU"}) {
    EXPECT_FALSE(Parse({"--device", device}).ok()) << device;
  }
}

TEST_F(ConfigTest, LimitsOfTheQueueFollowEachOther) {
  const auto small = ParseFile(
      R"({"limits": {"max_queue_size": 10,
                     "max_request_memory_bytes": "1048576"}})");
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_EQ(small->settings.max_client_queue_size, 5);
  EXPECT_EQ(small->settings.max_running_memory_bytes, 2 << 20);
  const auto set = ParseFile(
      R"({"limits": {"max_queue_size": 1, "max_client_queue_size": 1,
                     "max_queue_seconds": 2.5}})");
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->settings.max_client_queue_size, 1);
  EXPECT_EQ(set->settings.max_queue_time, absl::Seconds(2.5));
  const auto wrong = ParseFile(
      R"({"limits": {"max_queue_size": 10, "max_client_queue_size": 11,
                     "max_queue_seconds": 0,
                     "max_running_memory_bytes": 1048576}})");
  EXPECT_THAT(Fields(wrong.status()),
              UnorderedElementsAre("limits.max_client_queue_size",
                                   "limits.max_queue_seconds",
                                   "limits.max_running_memory_bytes"));
}

TEST_F(ConfigTest, PrintedConfigurationCanBeReadAgain) {
  const auto printed = Parse({"--print-config", "--listen", "127.0.0.1:7"});
  ASSERT_TRUE(printed.ok());
  EXPECT_EQ(printed->action, CommandLine::Action::kPrintConfig);
  EXPECT_THAT(printed->text, HasSubstr("\"max_queue_size\": 256"));
  const auto again = ParseFile(printed->text);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->settings.listen, "127.0.0.1:7");
}

TEST_F(ConfigTest, TlsListenersMayBePublic) {
  const auto authority = testing::MakeAuthority("authority");
  const auto server = testing::Issue(authority, "server");
  folder_.AddFile("server.crt", server.certificate);
  folder_.AddFile("server.key", server.key);
  const std::string tls = absl::StrCat(
      R"({"tls": {"certificate_file": ")", folder_.path(),
      R"(/server.crt", "key_file": ")", folder_.path(), R"(/server.key"}})");
  const auto line = ParseFile(tls, {"--listen", "0.0.0.0:0"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->settings.tls->key, folder_.path() + "/server.key");
  // Metrics stay plain.
  EXPECT_EQ(Fields(ParseFile(tls, {"--metrics", "0.0.0.0:0"}).status()),
            std::vector<std::string>{"--metrics"});
}

TEST_F(ConfigTest, FilesOfCredentialsAreJudged) {
  folder_.AddFile("tokens", "alice explain short\nbob king\n");
  const auto line = ParseFile(absl::StrCat(
      R"({"tls": {"key_file": "/nowhere", "reload_seconds": 0},
          "token_file": ")",
      folder_.path(), R"(/tokens"})"));
  EXPECT_THAT(Fields(line.status()),
              UnorderedElementsAre("tls.certificate_file", "tls.reload_seconds",
                                   "token_file", "token_file"));
  const auto missing = ParseFile(
      R"({"tls": {"certificate_file": "/nowhere", "key_file": "/nowhere",
                  "client_ca_file": "/nowhere"}, "token_file": "/nowhere"})");
  EXPECT_THAT(Fields(missing.status()),
              UnorderedElementsAre("tls.certificate_file", "tls.key_file",
                                   "tls.client_ca_file", "token_file"));
}

TEST_F(ConfigTest, TheServingWindowIsPartOfTheDrain) {
  EXPECT_EQ(ParseFile(R"({"drain_seconds": 0.2})")->settings.serving_window,
            absl::Seconds(0.2));
  EXPECT_EQ(
      Fields(ParseFile(R"({"drain_seconds": 2, "serving_window_seconds": 3})")
                 .status()),
      std::vector<std::string>{"serving_window_seconds"});
}

// Fields of a message and of those in it that are not set.
void FindUnset(const google::protobuf::Message& message,
               const std::string& prefix, std::vector<std::string>& unset) {
  const auto& descriptor = *message.GetDescriptor();
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const auto* const field = descriptor.field(i);
    const std::string name = prefix + field->name();
    if (field->is_repeated()
            ? reflection.FieldSize(message, field) == 0
            : field->has_presence() && !reflection.HasField(message, field)) {
      unset.push_back(name);
    } else if (field->message_type() != nullptr) {
      FindUnset(reflection.GetMessage(message, field), name + ".", unset);
    }
  }
}

TEST_F(ConfigTest, TheExampleSetsEverything) {
  config::v1::ServerConfig config;
  Violations mistakes;
  ReadConfigFile(LIMPID_SOURCE_DIR "/deploy/example.config.json", config,
                 mistakes);
  EXPECT_TRUE(mistakes.empty()) << mistakes.ToStatus();
  std::vector<std::string> unset;
  FindUnset(config, "", unset);
  EXPECT_THAT(unset, ::testing::IsEmpty());
  // Nothing is wrong with it but that its files are not here.
  const auto line = ParseCommandLine(
      {"--config", LIMPID_SOURCE_DIR "/deploy/example.config.json"});
  EXPECT_THAT(Fields(line.status()),
              ::testing::IsSubsetOf({"model_repository", "token_file",
                                     "tls.certificate_file", "tls.key_file",
                                     "tls.client_ca_file"}));
}

TEST_F(ConfigTest, HelpAndVersionPrint) {
  for (const char* flag : {"--help", "--version"}) {
    const auto line = ParseCommandLine({flag});
    ASSERT_TRUE(line.ok());
    EXPECT_EQ(line->action, CommandLine::Action::kPrint);
    EXPECT_THAT(line->text, HasSubstr("limpid-server"));
  }
}

TEST_F(ConfigTest, WorkersFollowTheDevice) {
  Settings settings;
  EXPECT_GE(NumWorkers(settings, {"cpu"}), 1);
  const int64_t on_gpu = NumWorkers(settings, {"cuda:0"});
  EXPECT_GE(on_gpu, 1);
  EXPECT_LE(on_gpu, 8);
  EXPECT_LE(NumWorkers(settings, {"cuda:0", "cuda:1"}), on_gpu);
  settings.workers = 5;
  EXPECT_EQ(NumWorkers(settings, {"cuda:0", "cuda:1"}), 5);
}

}  // namespace
}  // namespace limpid
