// SPDX-License-Identifier: Apache-2.0
//
// Prints what each token of a text adds to the model's answer.
// Usage: explain HOST:PORT TEXT
#include <cstdio>

#include "client/client.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  limpid::ClientOptions options;
  options.target = argv[1];
  options.deadline = absl::Seconds(10);
  options.retry.max_attempts = 5;
  const auto client = limpid::Client::Create(options);
  if (!client.ok()) return 2;

  limpid::v1::ExplainRequest request;
  request.set_model("sentiment-mamba");
  request.set_method("input-x-gradient");
  request.mutable_input()->set_text(argv[2]);
  const auto explanation = (*client)->Explain(request);
  if (!explanation.ok()) {
    std::fprintf(stderr, "%s\n", explanation.status().ToString().c_str());
    for (const auto& [field, what] :
         limpid::GetErrorReport(explanation.status()).violations) {
      std::fprintf(stderr, "  %s: %s\n", field.c_str(), what.c_str());
    }
    return 1;
  }
  for (const auto& token : explanation->summary.attributions()) {
    std::printf("%+.4f  %s\n", token.value(), token.piece().c_str());
  }
}
