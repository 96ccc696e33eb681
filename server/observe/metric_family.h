// SPDX-License-Identifier: Apache-2.0
//
// Metrics of one name, told apart by labels.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "prometheus/family.h"
#include "server/base/mutex.h"

namespace limpid {

// Keeps every metric that was asked for: prometheus-cpp makes a new one, with
// all of a histogram's buckets, each time only to throw it away. Thread-safe.
template <typename T>
class MetricFamily {
 public:
  // `arguments` are those of T's constructor.
  template <typename... Arguments>
  MetricFamily(prometheus::Family<T>& family, std::vector<std::string> labels,
               const Arguments&... arguments)
      : labels_(std::move(labels)),
        add_([&family, arguments...](const prometheus::Labels& of) -> T& {
          return family.Add(of, arguments...);
        }) {}

  // With a value for each label. Values come from closed sets, and so do the
  // metrics.
  T& With(std::initializer_list<absl::string_view> values) {
    const std::string key = absl::StrJoin(values, absl::string_view("\0", 1));
    MutexLock lock(mutex_);
    T*& metric = metrics_[key];
    if (metric == nullptr) {
      prometheus::Labels of;
      auto label = labels_.begin();
      for (const absl::string_view value : values) {
        of.emplace(*label++, std::string(value));
      }
      metric = &add_(of);
    }
    return *metric;
  }

 private:
  const std::vector<std::string> labels_;
  const std::function<T&(const prometheus::Labels&)> add_;
  Mutex mutex_;
  std::map<std::string, T*> metrics_ LIMPID_GUARDED_BY(mutex_);
};

}  // namespace limpid
