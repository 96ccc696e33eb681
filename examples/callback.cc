// SPDX-License-Identifier: Apache-2.0
//
// Explains many texts at a time: each call returns at once, its result comes to
// a callback. Usage: callback HOST:PORT TEXT...
#include <cstdio>
#include <future>
#include <string>
#include <vector>

#include "client/client.h"

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  limpid::ClientOptions options;
  options.target = argv[1];
  const auto client = limpid::Client::Create(options);
  if (!client.ok()) return 2;

  std::vector<std::promise<std::string>> answers(argc - 2);
  for (int i = 2; i < argc; ++i) {
    limpid::v1::ExplainRequest request;
    request.set_model("sentiment-mamba");
    request.mutable_input()->set_text(argv[i]);
    (*client)->ExplainAsync(
        request, [&answer = answers[i - 2]](const auto& explanation) {
          answer.set_value(explanation.ok()
                               ? explanation->summary.predictions(0).piece()
                               : explanation.status().ToString());
        });
  }
  for (int i = 2; i < argc; ++i) {
    std::printf("%s  %s\n", answers[i - 2].get_future().get().c_str(), argv[i]);
  }
}
