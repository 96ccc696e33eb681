// SPDX-License-Identifier: Apache-2.0
//
// Which of the waiting jobs starts next, and whether one more may wait.
//
// Jobs of a higher priority go first. Within a priority the clients share by
// cost (start-time fair queueing): a client's next job carries the virtual time
// at which its earlier ones would have ended had it had its share, and the
// smallest goes first. So a flood of one client delays another's job by one job
// of the flood, not by all of it. A client's own jobs keep their order.
//
// A job starts only if the running ones leave it enough memory. One that must
// wait for that may be overtaken by smaller ones, but only a few times; then
// nothing starts until it fits.
//
// A running job may pause: it waits for something else than a worker, such as a
// reader that takes its reply. Another one starts in its place meanwhile, but a
// client with many paused jobs has to wait for them first.
//
// Jobs run on devices, each with workers and memory of its own. A job goes to
// the device that can run it, has a worker free and has least to do, by the
// estimates of what it runs; one that can't run on the device that is free does
// not hold up those behind it.
//
// A job that has started may take companions with it: waiting jobs that can run
// in one batch with it. They join in the same fair order, each at its own
// client's cost, and hold no worker of their own.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "server/base/device_set.h"
#include "server/schedule/batch_policy.h"

namespace limpid {

using JobId = uint64_t;

enum class Priority { kHigh, kNormal, kLow };

// What the queue knows of a job.
struct Ticket {
  JobId id = 0;             // unique
  std::string client = {};  // who is to have a fair share
  Priority priority = Priority::kNormal;
  double seconds = 0;  // estimate of its run time; tiny ones count as 1 ms
  int64_t bytes = 0;   // held while it runs
  BatchKey batch = {};
  // What it needs on a device, and the devices that have it, which may change
  // while it waits; outlives the job. Null: it can run on any.
  std::string model = {};
  const DeviceSet* devices = nullptr;
};

struct QueueLimits {
  int64_t num_devices = 1;
  // Of each device.
  int64_t max_running = 1;
  // Of jobs that wait. One that can start at once does not count.
  int64_t max_waiting = 256;
  int64_t max_waiting_of_client = 256;
  // Sum of their estimates; a queue that is empty takes any job.
  double max_waiting_seconds = std::numeric_limits<double>::infinity();
  // Of a device's running jobs, those that pause beyond max_running: then
  // nothing starts there.
  int64_t max_paused = 0;
  // Of one client: then none of its jobs starts.
  int64_t max_paused_of_client = std::numeric_limits<int64_t>::max();
  // Sum over those that run on one device, paused or not.
  int64_t max_running_bytes = std::numeric_limits<int64_t>::max();
};

enum class Admission {
  kAccept,
  kQueueFull,
  kQueueTooLong,     // in seconds
  kClientQueueFull,  // this client's part of the queue
  kTooLarge,         // can never run
};

// A data structure without clock, threads or lock.
class FairQueue {
 public:
  explicit FairQueue(const QueueLimits& limits)
      : limits_(limits), devices_(limits.num_devices) {}

  Admission Decide(const Ticket& ticket) const;
  // Takes what Decide accepts.
  void Push(Ticket ticket);
  // The job that starts on a device now, which counts as running there from
  // here on; none if there is none, or none that may.
  std::optional<JobId> Pick(int64_t device = 0);
  // Waiting jobs that from here on run in one batch with `head`, which runs and
  // has not paused, in the order in which they join. May be called again while
  // the batch waits for more. Takes none that another worker is free for, and
  // none while the first in line for its device waits for memory.
  std::vector<JobId> PickCompanions(JobId head, const BatchLimits& limits);
  // Takes a waiting job out; false if it does not wait.
  bool Remove(JobId id);
  // A running job pauses, or goes on. Twice the same changes nothing, nor does
  // it for jobs of a batch.
  void SetPaused(JobId id, bool paused);
  // A running job has ended.
  void End(JobId id);

  // Models that are wanted on one more device, and how much, in seconds of
  // jobs: of those that wait with no worker free where they can run while one
  // is free elsewhere, and of those that share a device while another runs
  // nothing.
  std::map<std::string, double> Starved() const;

  const QueueLimits& limits() const { return limits_; }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  // Paused ones included.
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_running_on(int64_t device) const {
    return devices_[device].num_running;
  }
  int64_t num_paused(int64_t device = 0) const {
    return devices_[device].num_paused;
  }
  double waiting_seconds() const { return waiting_seconds_; }
  int64_t running_bytes(int64_t device = 0) const {
    return devices_[device].running_bytes;
  }

 private:
  struct Waiting {
    Ticket ticket;
    int num_overtakes = 0;  // while it was first in line
  };
  // A client's jobs of one priority.
  struct Flow {
    std::deque<Waiting> jobs;
    double tag = 0;  // virtual time at which the first of them may start
  };
  struct Class {
    std::map<std::string, Flow> flows;
    double virtual_time = 0;  // largest tag of a job that has started
  };
  struct Place {
    Priority priority;
    std::string client;
  };
  struct Running {
    std::string client;
    Priority priority = Priority::kNormal;
    int64_t bytes = 0;
    int64_t device = 0;
    double seconds = 0;
    std::string model = {};
    // Where else it could have run.
    std::optional<DeviceSet> devices = {};
    bool paused = false;
    bool is_companion = false;
    Batch batch = {};  // of one that is no companion
  };
  // A job that may start.
  struct Candidate {
    Class* of = nullptr;
    Flow* flow = nullptr;
    size_t index = 0;  // in the flow

    Waiting& waiting() const { return flow->jobs[index]; }
    const Ticket& ticket() const { return waiting().ticket; }
  };
  // What runs on one.
  struct Device {
    int64_t num_running = 0;
    int64_t num_paused = 0;
    int64_t num_companions = 0;
    int64_t running_bytes = 0;
    double running_seconds = 0;
  };

  Class& ClassOf(Priority priority) {
    return classes_[static_cast<size_t>(priority)];
  }
  int64_t NumWaitingOf(const std::string& client) const;
  int64_t NumPausedOf(const std::string& client) const;
  static bool CanRun(const Ticket& ticket, int64_t device) {
    return ticket.devices == nullptr || ticket.devices->Has(device);
  }
  bool Fits(const Ticket& ticket, int64_t device) const;
  // Of a device's workers, those that no running job holds.
  int64_t NumFreeWorkers(int64_t device) const;
  // Of those on all devices that can run it.
  int64_t NumFreeWorkersFor(const Ticket& ticket) const;
  // Whether another device that can start it now has less to do.
  bool IsBetterElsewhere(const Ticket& ticket, int64_t device) const;
  // Fewer than may run and pause.
  bool HasFreeWorker(int64_t device) const;
  // The first in line, in the fair order, of the jobs that can run on `device`
  // and that `suits` says yes to; of a client only the first one that can run
  // there is looked at.
  template <typename Suits>
  std::optional<Candidate> First(int64_t device, const Suits& suits);
  Ticket Start(const Candidate& candidate, int64_t device);
  static void ForgetIdle(Class& of);

  const QueueLimits limits_;
  std::array<Class, 3> classes_;  // by priority, highest first
  std::map<JobId, Place> waiting_;
  std::map<JobId, Running> running_;
  std::vector<Device> devices_;
  double waiting_seconds_ = 0;
};

}  // namespace limpid
