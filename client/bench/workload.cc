// SPDX-License-Identifier: Apache-2.0
#include "client/bench/workload.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace limpid::bench {
namespace {

int64_t Pick(std::mt19937_64& random, int64_t below) {
  return std::uniform_int_distribution<int64_t>(0, below - 1)(random);
}

}  // namespace

Workload::Workload(WorkloadOptions options) : options_(std::move(options)) {
  for (const v1::Model& model : options_.models) {
    digests_[model.name()] = model.digest();
  }
}

v1::ExplainRequest Workload::Next(std::mt19937_64& random) const {
  const v1::Model& model =
      options_.models[Pick(random, std::ssize(options_.models))];
  const int64_t length =
      options_.lengths[Pick(random, std::ssize(options_.lengths))];
  v1::ExplainRequest request;
  request.set_model(model.name());
  request.set_method(options_.method);
  v1::TokenIds& tokens = *request.mutable_input()->mutable_tokens();
  for (int64_t i = 0; i < length; ++i) {
    tokens.add_ids(Pick(random, model.vocabulary_size()));
  }
  return request;
}

std::string Workload::Mistake(const v1::ExplainRequest& request,
                              const Explanation& reply) const {
  const v1::ExplanationHeader& header = reply.header;
  const v1::ExplanationSummary& summary = reply.summary;
  if (header.model_digest() != digests_.at(request.model())) {
    return absl::StrCat("reply of the model ", header.model(), ", digest ",
                        header.model_digest());
  }
  const v1::TokenIds& tokens = request.input().tokens();
  if (header.tokens_size() != tokens.ids_size()) {
    return absl::StrCat(header.tokens_size(), " tokens came back of ",
                        tokens.ids_size());
  }
  for (int i = 0; i < tokens.ids_size(); ++i) {
    if (header.tokens(i).id() != tokens.ids(i)) {
      return absl::StrCat("another token came back at ", i);
    }
  }
  if (summary.layers_size() == 0) return "no layer was explained";
  // Written so that NaN is wrong, too.
  if (!(summary.max_reconstruction_error() <= options_.max_residual)) {
    return absl::StrCat("residual ", summary.max_reconstruction_error());
  }
  if (summary.num_non_finite() > 0) {
    return absl::StrCat(summary.num_non_finite(), " values are not finite");
  }
  return "";
}

}  // namespace limpid::bench
