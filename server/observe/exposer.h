// SPDX-License-Identifier: Apache-2.0
//
// GET /metrics over HTTP.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "prometheus/registry.h"
#include "server/base/status.h"

namespace limpid {

// Serves a registry until it is destroyed, from one thread. Connections are
// limited in number and silent ones closed; still keep the port off public
// networks.
class MetricsExposer {
 public:
  // `host_port` as "127.0.0.1:0" or "[::1]:9090"; port 0 takes a free one.
  // FAILED_PRECONDITION, reason METRICS_LISTEN_FAILED, if it can't be opened.
  // `before_scrape` brings up to date what is only worth knowing then.
  static absl::StatusOr<std::unique_ptr<MetricsExposer>> Open(
      const std::string& host_port,
      std::shared_ptr<prometheus::Registry> registry,
      std::function<void()> before_scrape);
  virtual ~MetricsExposer() = default;

  // HOST:PORT with the port in use.
  virtual const std::string& address() const = 0;
};

}  // namespace limpid
