// SPDX-License-Identifier: Apache-2.0
#include "client/bench/load.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "client/error_report.h"

namespace limpid::bench {
namespace {

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

class Load {
 public:
  Load(const LoadOptions& options, const Workload& workload, const Call& call)
      : options_(options), workload_(workload), call_(call) {}

  LoadResult Run() {
    const absl::Time begin = absl::Now();
    const absl::Time end = begin + options_.duration;
    std::vector<std::thread> threads;
    const int num_threads =
        options_.rate ? options_.max_in_flight : options_.clients;
    threads.reserve(num_threads);
    for (int i = 0; i < num_threads; ++i) {
      threads.emplace_back([this, i, end] {
        options_.rate ? SendArrivals(i % options_.clients) : SendUntil(i, end);
      });
    }
    if (options_.rate) MakeArrivals(begin, end);
    for (std::thread& thread : threads) thread.join();
    result_.took = absl::Now() - begin;
    return std::move(result_);
  }

 private:
  struct Arrival {
    absl::Time due;
    v1::ExplainRequest request;
  };

  void MakeArrivals(absl::Time begin, absl::Time end) {
    std::mt19937_64 random(options_.seed);
    std::exponential_distribution<double> distance(*options_.rate);
    absl::Time due = begin;
    while (!stop_) {
      due += absl::Seconds(distance(random));
      if (due >= end) break;
      v1::ExplainRequest request = workload_.Next(random);
      absl::SleepFor(due - absl::Now());
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        arrivals_.push_back({due, std::move(request)});
      }
      changed_.notify_one();
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      no_more_ = true;
    }
    changed_.notify_all();
  }

  void SendArrivals(int client) {
    while (true) {
      Arrival arrival;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return no_more_ || !arrivals_.empty(); });
        if (arrivals_.empty() || stop_) return;
        arrival = std::move(arrivals_.front());
        arrivals_.pop_front();
      }
      Send(client, arrival.request, arrival.due);
    }
  }

  void SendUntil(int client, absl::Time end) {
    std::mt19937_64 random(options_.seed + static_cast<uint64_t>(client));
    while (!stop_ && absl::Now() < end) {
      const v1::ExplainRequest request = workload_.Next(random);
      Send(client, request, absl::Now());
    }
  }

  void Send(int client, const v1::ExplainRequest& request, absl::Time due) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++result_.num_sent;
    }
    const absl::Time begin = absl::Now();
    const absl::StatusOr<Explanation> reply = call_(client, request);
    const absl::Time end = absl::Now();
    Sample sample;
    sample.code = reply.status().code();
    sample.latency = end - due;
    sample.service = end - begin;
    if (reply.ok()) {
      sample.mistake = workload_.Mistake(request, *reply);
      sample.queue = ToDuration(reply->summary.times().queue());
      sample.compute = ToDuration(reply->summary.times().compute());
    } else {
      sample.retry_info =
          GetErrorReport(reply.status()).retry_after.has_value();
      // A damaged reply; the message says where.
      if (absl::IsDataLoss(reply.status())) {
        sample.mistake = std::string(reply.status().message());
      }
    }
    if (absl::IsCancelled(reply.status())) stop_ = true;
    const std::lock_guard<std::mutex> lock(mutex_);
    result_.samples.push_back(std::move(sample));
  }

  const LoadOptions& options_;
  const Workload& workload_;
  const Call& call_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Arrival> arrivals_;  // guarded by mutex_
  bool no_more_ = false;          // guarded by mutex_
  LoadResult result_;             // guarded by mutex_ while threads run
};

}  // namespace

LoadResult RunLoad(const LoadOptions& options, const Workload& workload,
                   const Call& call) {
  return Load(options, workload, call).Run();
}

}  // namespace limpid::bench
