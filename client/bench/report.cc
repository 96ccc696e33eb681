// SPDX-License-Identifier: Apache-2.0
#include "client/bench/report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/error_report.h"

namespace limpid::bench {
namespace {

using Json = nlohmann::ordered_json;

Json ToJson(const Percentiles& p) {
  return {{"p50", p.p50}, {"p95", p.p95}, {"p99", p.p99}, {"max", p.max}};
}

std::string Row(const char* name, const Percentiles& p) {
  return absl::StrFormat("%-22s %10.2f %10.2f %10.2f %10.2f\n", name, p.p50,
                         p.p95, p.p99, p.max);
}

}  // namespace

Percentiles PercentilesOf(std::vector<absl::Duration> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&values](double share) {
    const double rank = std::ceil(share * static_cast<double>(values.size()));
    return absl::ToDoubleMilliseconds(values[static_cast<size_t>(rank) - 1]);
  };
  return {at(0.5), at(0.95), at(0.99), at(1)};
}

bool Summary::Passed() const {
  return num_ok > 0 && num_wrong == 0 && num_lost == 0 &&
         errors.count("INTERNAL") == 0 && errors.count("UNKNOWN") == 0;
}

Summary Summarize(const LoadResult& result) {
  Summary summary;
  summary.seconds = absl::ToDoubleSeconds(result.took);
  summary.num_sent = result.num_sent;
  summary.num_lost =
      result.num_sent - static_cast<int64_t>(result.samples.size());
  std::vector<absl::Duration> latency, queue, compute, overhead, refusal;
  for (const Sample& sample : result.samples) {
    if (!sample.mistake.empty()) {
      ++summary.num_wrong;
      if (summary.first_mistake.empty()) summary.first_mistake = sample.mistake;
    }
    if (sample.code != absl::StatusCode::kOk) {
      ++summary.errors[CanonicalName(sample.code)];
    } else if (sample.mistake.empty()) {
      ++summary.num_ok;
      latency.push_back(sample.latency);
      queue.push_back(sample.queue);
      compute.push_back(sample.compute);
      overhead.push_back(sample.service - sample.compute);
    }
    if (sample.code == absl::StatusCode::kResourceExhausted) {
      ++summary.num_refused;
      summary.num_refused_with_retry += sample.retry_info ? 1 : 0;
      refusal.push_back(sample.service);
    }
  }
  summary.throughput = static_cast<double>(summary.num_ok) / summary.seconds;
  summary.latency = PercentilesOf(std::move(latency));
  summary.queue = PercentilesOf(std::move(queue));
  summary.compute = PercentilesOf(std::move(compute));
  summary.overhead = PercentilesOf(std::move(overhead));
  summary.refusal = PercentilesOf(std::move(refusal));
  return summary;
}

std::string SummaryText(const Summary& s) {
  std::string text = absl::StrFormat(
      "sent %d in %.1f s: %d good (%.1f/s), %d wrong, %d lost\n", s.num_sent,
      s.seconds, s.num_ok, s.throughput, s.num_wrong, s.num_lost);
  for (const auto& [code, count] : s.errors) {
    absl::StrAppendFormat(&text, "  %s: %d\n", code, count);
  }
  if (!s.first_mistake.empty()) {
    absl::StrAppend(&text, "first wrong reply: ", s.first_mistake, "\n");
  }
  absl::StrAppendFormat(&text, "%-22s %10s %10s %10s %10s\n", "milliseconds",
                        "p50", "p95", "p99", "max");
  absl::StrAppend(&text, Row("latency", s.latency), Row("queue", s.queue),
                  Row("compute", s.compute), Row("overhead", s.overhead));
  if (s.num_refused > 0) {
    absl::StrAppend(&text, Row("refusal", s.refusal));
    absl::StrAppendFormat(&text, "%d of %d refusals say when to come back\n",
                          s.num_refused_with_retry, s.num_refused);
  }
  return text;
}

std::string SummaryJson(const Summary& s) {
  const Json json = {{"seconds", s.seconds},
                     {"sent", s.num_sent},
                     {"ok", s.num_ok},
                     {"wrong", s.num_wrong},
                     {"lost", s.num_lost},
                     {"errors", s.errors},
                     {"throughput_per_second", s.throughput},
                     {"latency_ms", ToJson(s.latency)},
                     {"queue_ms", ToJson(s.queue)},
                     {"compute_ms", ToJson(s.compute)},
                     {"overhead_ms", ToJson(s.overhead)},
                     {"refused", s.num_refused},
                     {"refused_with_retry_info", s.num_refused_with_retry},
                     {"refusal_ms", ToJson(s.refusal)},
                     {"first_mistake", s.first_mistake}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace limpid::bench
