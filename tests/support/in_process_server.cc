// SPDX-License-Identifier: Apache-2.0
#include "tests/support/in_process_server.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>

#include "google/rpc/status.pb.h"

namespace limpid::testing {

std::string LockedText::Text() const {
  std::lock_guard lock(mutex_);
  return text_;
}

std::streamsize LockedText::xsputn(const char* text, std::streamsize size) {
  std::lock_guard lock(mutex_);
  text_.append(text, size);
  return size;
}

int LockedText::overflow(int c) {
  std::lock_guard lock(mutex_);
  text_ += static_cast<char>(c);
  return c;
}

InProcessServer::InProcessServer() {
  repository.AddModel("a");
  repository.AddModel("b");
  options.model_repository = repository.path();
  // Most tests do without.
  options.metrics.reset();
  options.version = "1.2.3";
  options.methods = FakeMethods();
  options.architectures = {"mamba", "vim"};
}

InProcessServer::~InProcessServer() {
  engine.Release();
  serving_.reset();
}

void InProcessServer::Start() {
  log_ = std::make_unique<Log>(LogOptions(), log_stream_);
  auto started = Serving::Start(options, engine, *log_);
  ASSERT_TRUE(started.ok()) << started.status();
  serving_ = *std::move(started);
  std::mutex mutex;
  std::condition_variable changed;
  bool loaded = false;
  serving_->LoadModels([&] {
    std::lock_guard lock(mutex);
    loaded = true;
    changed.notify_all();
  });
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return loaded; });
  serving_->SetServing();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  channel_ = grpc::CreateCustomChannel(
      serving_->address(), grpc::InsecureChannelCredentials(), arguments);
  explanations_ = v1::ExplanationService::NewStub(channel_);
  models_ = v1::ModelService::NewStub(channel_);
}

grpc::Status InProcessServer::Explain(const v1::ExplainRequest& request,
                                      v1::ExplainResponse* response) {
  grpc::ClientContext context;
  v1::ExplainResponse ignored;
  return explanations_->Explain(&context, request,
                                response != nullptr ? response : &ignored);
}

v1::Model InProcessServer::GetModel(const std::string& name) {
  grpc::ClientContext context;
  v1::GetModelRequest request;
  request.set_model(name);
  v1::GetModelResponse reply;
  EXPECT_TRUE(models_->GetModel(&context, request, &reply).ok());
  return reply.model();
}

std::string InProcessServer::Scrape() const {
  const std::string& address = serving_->metrics_address();
  sockaddr_in where = {};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  where.sin_port = htons(static_cast<uint16_t>(
      std::atoi(address.substr(address.rfind(':') + 1).c_str())));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  std::string reply;
  if (connect(fd, reinterpret_cast<sockaddr*>(&where), sizeof(where)) == 0) {
    const std::string request =
        "GET /metrics HTTP/1.0\r\nConnection: close\r\n\r\n";
    (void)!write(fd, request.data(), request.size());
    char buffer[4096];
    ssize_t n = 0;
    while ((n = read(fd, buffer, sizeof(buffer))) > 0) reply.append(buffer, n);
  }
  close(fd);
  return reply;
}

v1::ExplainRequest TextRequest(const std::string& text) {
  v1::ExplainRequest request;
  request.set_model("a");
  request.mutable_input()->set_text(text);
  return request;
}

std::vector<std::string> Details::Fields() const {
  std::vector<std::string> fields;
  for (const auto& violation : bad_request.field_violations()) {
    fields.push_back(violation.field());
  }
  return fields;
}

Details DetailsOf(const grpc::Status& status) {
  Details details;
  google::rpc::Status packed;
  packed.ParseFromString(status.error_details());
  EXPECT_EQ(packed.code(), static_cast<int>(status.error_code()));
  for (const auto& any : packed.details()) {
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&retry)) {
      details.has_retry = true;
      details.retry_seconds =
          retry.retry_delay().seconds() + retry.retry_delay().nanos() * 1e-9;
    }
    any.UnpackTo(&details.info);
    any.UnpackTo(&details.bad_request);
  }
  return details;
}

}  // namespace limpid::testing
