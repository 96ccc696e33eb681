// SPDX-License-Identifier: Apache-2.0
//
// Keeps an explanation as it comes.
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "server/explain/result.h"

namespace limpid::testing {

class CollectingSink final : public ResultSink {
 public:
  absl::Status OnHeader(ResultHeader value) override {
    header = std::move(value);
    return absl::OkStatus();
  }
  absl::Status OnProgress(int64_t done, int64_t total, const char*) override {
    return on_progress ? on_progress(done, total) : absl::OkStatus();
  }
  absl::Status OnTensor(NamedTensor tensor) override {
    const std::string name = tensor.name;
    tensors[name] = std::move(tensor);
    return absl::OkStatus();
  }
  absl::Status OnSummary(ResultSummary value) override {
    summary = std::move(value);
    return absl::OkStatus();
  }
  bool Restart() override {
    if (!restarts) return false;
    header.reset();
    tensors.clear();
    summary.reset();
    return true;
  }

  // Elements of a float32 tensor; empty if there is none of that name.
  std::vector<float> Floats(const std::string& name) const {
    const auto found = tensors.find(name);
    if (found == tensors.end()) return {};
    std::vector<float> out(found->second.bytes.size() / sizeof(float));
    std::memcpy(out.data(), found->second.bytes.data(),
                out.size() * sizeof(float));
    return out;
  }

  std::function<absl::Status(int64_t done, int64_t total)> on_progress;
  // Whether what came can be taken back.
  bool restarts = true;
  std::optional<ResultHeader> header;
  std::map<std::string, NamedTensor> tensors;
  std::optional<ResultSummary> summary;
};

}  // namespace limpid::testing
