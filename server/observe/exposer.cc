// SPDX-License-Identifier: Apache-2.0
#include "server/observe/exposer.h"

#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "prometheus/exposer.h"

namespace limpid {
namespace {

// The web server gives every connection a thread. With its usual two, a couple
// of silent connections stall every scrape; more are cheap as long as they are
// idle.
constexpr char kNumThreads[] = "128";
constexpr char kRequestTimeoutMs[] = "5000";

class CivetExposer final : public MetricsExposer {
 public:
  CivetExposer(const std::string& host_port,
               std::shared_ptr<prometheus::Registry> registry)
      : registry_(std::move(registry)),
        exposer_(std::vector<std::string>{
            "listening_ports", host_port, "num_threads", kNumThreads,
            "request_timeout_ms", kRequestTimeoutMs}) {
    exposer_.RegisterCollectable(registry_);
    const std::vector<int> ports = exposer_.GetListeningPorts();
    address_ = absl::StrCat(host_port.substr(0, host_port.rfind(':')), ":",
                            ports.empty() ? 0 : ports[0]);
  }

  const std::string& address() const override { return address_; }

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Exposer exposer_;
  std::string address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsExposer>> MetricsExposer::Open(
    const std::string& host_port,
    std::shared_ptr<prometheus::Registry> registry) {
  try {
    return std::make_unique<CivetExposer>(host_port, std::move(registry));
  } catch (const std::exception& e) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "METRICS_LISTEN_FAILED",
                     absl::StrCat("can't serve metrics on ", host_port, ": ",
                                  e.what(), " (is the port taken?)"));
  }
}

}  // namespace limpid
