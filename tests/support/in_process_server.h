// SPDX-License-Identifier: Apache-2.0
//
// The whole RPC side of the server over real TCP, with a fake engine.
#pragma once

#include <google/rpc/error_details.pb.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <mutex>
#include <ostream>
#include <streambuf>
#include <string>
#include <vector>

#include "limpid/v1/explanation.grpc.pb.h"
#include "limpid/v1/model.grpc.pb.h"
#include "server/observe/log.h"
#include "server/rpc/serving.h"
#include "tests/support/fake_engine.h"
#include "tests/support/temporary_repository.h"

namespace limpid::testing {

// Text that several threads write and a test reads.
class LockedText : public std::streambuf {
 public:
  std::string Text() const;

 protected:
  std::streamsize xsputn(const char* text, std::streamsize size) override;
  int overflow(int c) override;

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

// Models: "a" and "b"; metrics off. Start after the engine and the options have
// been set.
class InProcessServer {
 public:
  InProcessServer();
  // Releases the engine first.
  ~InProcessServer();

  void Start();

  FakeEngine engine;
  ServingOptions options;
  TemporaryRepository repository;

  Serving& serving() { return *serving_; }
  void Stop() { serving_.reset(); }
  std::string LogText() const { return log_text_.Text(); }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  v1::ExplanationService::Stub& explanations() { return *explanations_; }
  v1::ModelService::Stub& models() { return *models_; }

  // One call of Explain.
  grpc::Status Explain(const v1::ExplainRequest& request,
                       v1::ExplainResponse* response = nullptr);
  // Fails the test if the model is not known.
  v1::Model GetModel(const std::string& name);
  // Reply to GET /metrics.
  std::string Scrape() const;

 private:
  LockedText log_text_;
  std::ostream log_stream_{&log_text_};
  std::unique_ptr<Log> log_;
  std::unique_ptr<Serving> serving_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ExplanationService::Stub> explanations_;
  std::unique_ptr<v1::ModelService::Stub> models_;
};

// "a" asked about `text`.
v1::ExplainRequest TextRequest(const std::string& text);

// Details of a status, decoded.
struct Details {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
  bool has_retry = false;
  double retry_seconds = 0;

  std::vector<std::string> Fields() const;
};
Details DetailsOf(const grpc::Status& status);

}  // namespace limpid::testing
