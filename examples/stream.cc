// SPDX-License-Identifier: Apache-2.0
//
// Takes the attention matrices of every layer while they are computed.
// Usage: stream HOST:PORT TEXT
#include <cstdio>

#include "client/client.h"
#include "client/tensor_codec.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  limpid::ClientOptions options;
  options.target = argv[1];
  const auto client = limpid::Client::Create(options);
  if (!client.ok()) return 2;

  limpid::v1::ExplainRequest request;
  request.set_model("sentiment-mamba");
  request.mutable_input()->set_text(argv[2]);
  request.mutable_attention()->set_kind(limpid::v1::ATTENTION_KIND_MATRIX);
  limpid::StreamObserver observer;
  observer.on_tensor = [](const limpid::v1::Tensor& tensor) {
    const auto values = limpid::UnpackFloats(tensor);
    if (!values.ok()) return;
    std::printf("%s: %zu numbers\n", tensor.header().name().c_str(),
                values->size());
  };
  const auto explanation = (*client)->StreamExplain(request, observer);
  if (!explanation.ok()) {
    std::fprintf(stderr, "%s\n", explanation.status().ToString().c_str());
    return 1;
  }
  std::printf("reconstruction error %.1e\n",
              explanation->summary.max_reconstruction_error());
}
