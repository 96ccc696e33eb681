// SPDX-License-Identifier: Apache-2.0
#include "client/channel.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <fstream>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

constexpr std::streamsize kMaxFileBytes = 16 << 20;

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxFileBytes, '\0');
  if (file) file.read(text.data(), kMaxFileBytes);
  if (!file.is_open() || file.bad() || (file.gcount() == 0 && !file.eof())) {
    return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

// gRPC aborts the process on header values with other characters.
bool IsHeaderValue(const std::string& value) {
  for (const char c : value) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) return false;
  }
  return true;
}

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path);
  if (!text.ok()) return text;
  const std::string token(
      absl::StripAsciiWhitespace(text->substr(0, text->find('\n'))));
  if (token.empty() || !IsHeaderValue(token)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": its first line is not a token"));
  }
  return token;
}

}  // namespace

bool IsLoopback(const std::string& target) {
  return absl::StartsWith(target, "127.") ||
         absl::StartsWith(target, "localhost:") ||
         absl::StartsWith(target, "[::1]") || absl::StartsWith(target, "unix:");
}

absl::StatusOr<Connection> Connect(const ClientOptions& options) {
  if (!IsHeaderValue(options.request_id)) {
    return absl::InvalidArgumentError(
        "a request id consists of printable ASCII characters");
  }
  Connection connection;
  if (!options.token_file.empty()) {
    absl::StatusOr<std::string> token = ReadToken(options.token_file);
    if (!token.ok()) return token.status();
    connection.authorization = absl::StrCat("Bearer ", *token);
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials =
      grpc::InsecureChannelCredentials();
  if (!options.ca_file.empty()) {
    absl::StatusOr<std::string> roots = ReadSmallFile(options.ca_file);
    if (!roots.ok()) return roots.status();
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = *std::move(roots);
    if (!options.certificate_file.empty()) {
      absl::StatusOr<std::string> certificate =
          ReadSmallFile(options.certificate_file);
      if (!certificate.ok()) return certificate.status();
      absl::StatusOr<std::string> key = ReadSmallFile(options.key_file);
      if (!key.ok()) return key.status();
      ssl.pem_cert_chain = *std::move(certificate);
      ssl.pem_private_key = *std::move(key);
    }
    credentials = grpc::SslCredentials(ssl);
  }
  if (options.certificate_file.empty() != options.key_file.empty() ||
      (!options.certificate_file.empty() && options.ca_file.empty())) {
    return absl::InvalidArgumentError(
        "a client's certificate needs its key, and TLS: --cert, --key and --ca "
        "go together");
  }
  grpc::ChannelArguments arguments;
  // Replies are as large as was asked for; Protobuf itself stops at 2 GiB.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetUserAgentPrefix("limpid-client");
  // Trying again is this client's own business (client/retry.h), and its pauses
  // are shorter than gRPC's default of a second between connections.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  // A proxy named by the environment can't reach this machine's loopback.
  if (IsLoopback(options.target)) {
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  }
  // Clients of one program are to have connections of their own.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  connection.channel =
      grpc::CreateCustomChannel(options.target, credentials, arguments);
  return connection;
}

}  // namespace limpid
