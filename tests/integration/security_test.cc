// SPDX-License-Identifier: Apache-2.0
//
// TLS, mutual TLS and bearer tokens over TCP.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/support/certificates.h"
#include "tests/support/in_process_server.h"

namespace limpid::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kAlice[] = "alice-0123456789abcdef";
constexpr char kRoot[] = "root-0123456789abcdef";

class SecurityTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    files_.AddFile("next", text);
    const std::string path = files_.path() + "/" + name;
    std::filesystem::rename(files_.path() + "/next", path);
    return path;
  }
  void UseTls(bool mutual) {
    TlsFiles tls;
    tls.certificate = Write("server.crt", server_identity_.certificate);
    tls.key = Write("server.key", server_identity_.key);
    if (mutual) tls.client_ca = Write("ca.crt", authority_.certificate);
    server_.options.rpc.tls = tls;
  }
  // The code of a GetModel call over a new connection.
  grpc::StatusCode Call(const std::shared_ptr<grpc::ChannelCredentials>& with) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    auto stub = v1::ModelService::NewStub(grpc::CreateCustomChannel(
        server_.serving().address(), with, arguments));
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model("a");
    v1::GetModelResponse response;
    return stub->GetModel(&context, request, &response).error_code();
  }
  std::shared_ptr<grpc::ChannelCredentials> Tls(const Identity& client) {
    return grpc::SslCredentials(
        {authority_.certificate, client.key, client.certificate});
  }
  void UseTokens(const std::string& text) {
    server_.options.token_file = Write("tokens", text);
  }
  // Adds a token to a call.
  static void Sign(grpc::ClientContext& context, const std::string& token) {
    context.AddMetadata("authorization", "Bearer " + token);
  }
  grpc::Status Explain(const std::string& token) {
    grpc::ClientContext context;
    if (!token.empty()) Sign(context, token);
    v1::ExplainResponse response;
    return server_.explanations().Explain(&context, TextRequest("abc"),
                                          &response);
  }
  grpc::Status Load(const std::string& token) {
    grpc::ClientContext context;
    Sign(context, token);
    v1::LoadModelRequest request;
    request.set_model("a");
    v1::LoadModelResponse response;
    return server_.models().LoadModel(&context, request, &response);
  }

  const Identity authority_ = MakeAuthority("authority");
  const Identity server_identity_ = Issue(authority_, "server");
  TemporaryRepository files_;
  InProcessServer server_;
};

TEST_F(SecurityTest, TlsServesThoseWhoSpeakIt) {
  UseTls(false);
  server_.Start();
  EXPECT_EQ(Call(Tls({})), grpc::StatusCode::OK);
  EXPECT_EQ(Call(grpc::InsecureChannelCredentials()),
            grpc::StatusCode::UNAVAILABLE);
  const Identity stranger = MakeAuthority("stranger");
  EXPECT_EQ(Call(grpc::SslCredentials({stranger.certificate, "", ""})),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(SecurityTest, MutualTlsWantsACertificateOfItsAuthority) {
  UseTls(true);
  server_.Start();
  EXPECT_EQ(Call(Tls(Issue(authority_, "client"))), grpc::StatusCode::OK);
  EXPECT_EQ(Call(Tls({})), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Call(Tls(Issue(MakeAuthority("stranger"), "client"))),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(SecurityTest, ProbesNeedNeitherTlsNorToken) {
  UseTls(true);
  UseTokens("alice explain alice-0123456789abcdef");
  server_.options.rpc.health = "127.0.0.1:0";
  server_.Start();
  auto stub = grpc::health::v1::Health::NewStub(grpc::CreateChannel(
      server_.serving().health_address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckResponse response;
  EXPECT_TRUE(stub->Check(&context, {}, &response).ok());
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

TEST_F(SecurityTest, CallersWithoutKnownTokenAreUnauthenticated) {
  UseTokens("alice explain alice-0123456789abcdef");
  server_.Start();
  EXPECT_TRUE(Explain(kAlice).ok());
  const grpc::Status without = Explain("");
  EXPECT_EQ(without.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(DetailsOf(without).info.reason(), "TOKEN_MISSING");
  const grpc::Status unknown = Explain("nobody-0123456789abcdef");
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(DetailsOf(unknown).info.reason(), "TOKEN_UNKNOWN");

  grpc::ClientContext twice;
  Sign(twice, kAlice);
  Sign(twice, "nobody-0123456789abcdef");
  v1::ExplainResponse response;
  EXPECT_EQ(server_.explanations()
                .Explain(&twice, TextRequest("abc"), &response)
                .error_code(),
            grpc::StatusCode::UNAUTHENTICATED);

  grpc::ClientContext stream_context;
  auto reader =
      server_.explanations().StreamExplain(&stream_context, TextRequest("abc"));
  v1::StreamExplainResponse part;
  EXPECT_FALSE(reader->Read(&part));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(SecurityTest, NothingIsSaidOfModelsOrRequestsBeforeTheToken) {
  UseTokens("alice explain alice-0123456789abcdef");
  server_.Start();
  v1::ExplainRequest wrong = TextRequest("");
  wrong.set_model("zebra");
  const grpc::Status status = server_.Explain(wrong);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(DetailsOf(status).Fields().empty());
}

TEST_F(SecurityTest, LoadingNeedsTheRoleAdmin) {
  UseTokens(
      "alice explain alice-0123456789abcdef\n"
      "root admin root-0123456789abcdef\n");
  server_.Start();
  EXPECT_TRUE(Load(kRoot).ok());
  EXPECT_TRUE(Explain(kRoot).ok());
  const grpc::Status refused = Load(kAlice);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  const Details details = DetailsOf(refused);
  EXPECT_EQ(details.info.reason(), "ROLE_MISSING");
  EXPECT_EQ(details.info.metadata().at("caller"), "alice");
  EXPECT_EQ(details.info.metadata().at("role"), "admin");

  grpc::ClientContext context;
  Sign(context, kAlice);
  v1::UnloadModelRequest request;
  request.set_model("a");
  v1::UnloadModelResponse response;
  EXPECT_EQ(
      server_.models().UnloadModel(&context, request, &response).error_code(),
      grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(Explain(kAlice).ok());
}

TEST_F(SecurityTest, ReplacedTokenFilesCountFromTheNextCallOn) {
  UseTokens("alice explain alice-0123456789abcdef");
  server_.Start();
  ASSERT_TRUE(Explain(kAlice).ok());
  Write("tokens", "root admin root-0123456789abcdef");
  EXPECT_EQ(Explain(kAlice).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(Explain(kRoot).ok());
  Write("tokens", "no token file");
  EXPECT_TRUE(Explain(kRoot).ok());
  server_.Stop();
  EXPECT_THAT(server_.LogText(), HasSubstr("tokens replaced"));
  EXPECT_THAT(server_.LogText(), HasSubstr("tokens not replaced"));
}

TEST_F(SecurityTest, LogsNameTheCallerAndNeverItsToken) {
  UseTokens("alice explain alice-0123456789abcdef");
  server_.Start();
  ASSERT_TRUE(Explain(kAlice).ok());
  ASSERT_FALSE(Explain("nobody-0123456789abcdef").ok());
  server_.Stop();
  EXPECT_THAT(server_.LogText(), HasSubstr("\"caller\":\"alice\""));
  EXPECT_THAT(server_.LogText(), Not(HasSubstr("0123456789abcdef\"")));
}

}  // namespace
}  // namespace limpid::testing
