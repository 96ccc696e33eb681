// SPDX-License-Identifier: Apache-2.0
//
// Explanations that are being computed or wait for it, by what was asked:
// identical requests share one computation.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "limpid/v1/explanation.pb.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/observe/metrics.h"
#include "server/schedule/worker_pool.h"

namespace limpid {

// Thread-safe.
class Flights {
 public:
  struct Result {
    absl::Status status;
    v1::ExplainResponse response;  // if the status is ok
    ExplanationMetrics explained;
  };
  // `first`: the one who began the computation.
  using Answer = std::function<void(bool first, const Result& result)>;

  // One computation. Its token is cancelled once nobody waits for it any more,
  // and has the latest deadline of those who have.
  struct Flight {
    Flight(std::string of, absl::Time deadline)
        : key(std::move(of)), cancel(deadline) {}
    const std::string key;
    CancelToken cancel;
    const JobId job = NewJobId();

   private:
    friend class Flights;
    // Under the lock of Flights.
    uint64_t first_seat = 0;
    std::map<uint64_t, Answer> waiting;  // by seat
  };

  // A place of one who waits.
  struct Seat {
    std::shared_ptr<Flight> flight;
    uint64_t id = 0;
    bool first = false;  // has to submit the flight's job
  };

  // `pool` works the jobs off and outlives this.
  explicit Flights(WorkerPool& pool) : pool_(pool) {}

  // Joins the computation of that key, or begins one. `answer` is called once
  // by End, unless Leave comes first.
  Seat Board(const std::string& key, absl::Time deadline, Answer answer);

  // Gives a seat up; false if it has been answered or is about to be. When
  // nobody is left, cancels the job.
  bool Leave(const Seat& seat);

  // The job has ended, or could not be submitted: answers all who wait, on this
  // thread. Whether the one who began it was among them.
  bool End(const std::shared_ptr<Flight>& flight, const Result& result);

 private:
  // Nobody joins from here on.
  void Forget(const std::shared_ptr<Flight>& flight) LIMPID_REQUIRES(mutex_);

  WorkerPool& pool_;
  Mutex mutex_;
  uint64_t last_seat_ LIMPID_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::shared_ptr<Flight>> flights_
      LIMPID_GUARDED_BY(mutex_);
};

}  // namespace limpid
