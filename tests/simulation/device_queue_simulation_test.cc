// SPDX-License-Identifier: Apache-2.0
//
// Random schedules of arrivals, starts, batches and ends against a FairQueue of
// several devices, of which jobs can run on some, with what it promises checked
// after every step.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "server/schedule/fair_queue.h"
#include "tests/simulation/seeds.h"

namespace limpid {
namespace {

using testing::Chance;
using testing::Pick;
using testing::Random;

constexpr int64_t kNumSchedules = 25000;

// Jobs that can run on some of several devices only, which change.
class DeviceSchedule {
 public:
  explicit DeviceSchedule(uint64_t seed)
      : random_(seed), limits_(RandomLimits(random_)), queue_(limits_) {
    for (DeviceSet& devices : models_) {
      devices.Add(Pick(random_, 0, limits_.num_devices - 1));
    }
    batch_.max_size = Pick(random_, 1, 4);
    batch_.max_seconds = 100;
  }

  void Run() {
    for (int64_t i = Pick(random_, 10, 80); i > 0; --i) {
      const int64_t device = Pick(random_, 0, limits_.num_devices - 1);
      if (Chance(random_, 0.5)) {
        Arrive();
      } else if (Chance(random_, 0.1)) {
        models_[Pick(random_, 0, kNumModels - 1)].Add(device);
      } else if (Chance(random_, 0.5)) {
        Start(device);
      } else {
        End();
      }
      Check();
    }
    while (!waiting_.empty() || !running_.empty()) {
      for (bool some = true; some;) {
        some = false;
        for (int64_t device = 0; device < limits_.num_devices; ++device) {
          while (Start(device)) some = true;
          Check();
        }
      }
      ExpectNothingIsLeftToDo();
      ASSERT_FALSE(running_.empty()) << "jobs wait although nothing runs";
      End();
      Check();
    }
  }

 private:
  static constexpr int64_t kNumModels = 3;
  struct Job {
    Ticket ticket;
    int64_t model = 0;
    int64_t device = 0;  // of a running one
  };

  static QueueLimits RandomLimits(Random& random) {
    QueueLimits limits;
    limits.num_devices = Pick(random, 2, 4);
    limits.max_running = Pick(random, 1, 3);
    limits.max_waiting = 30;
    limits.max_running_bytes = Pick(random, 10, 30);
    return limits;
  }

  void Arrive() {
    Job job;
    job.model = Pick(random_, 0, kNumModels - 1);
    job.ticket.id = ++last_id_;
    job.ticket.client =
        std::string(1, static_cast<char>('a' + Pick(random_, 0, 1)));
    job.ticket.bytes = Pick(random_, 0, 10);
    job.ticket.seconds = 1;
    job.ticket.model = std::to_string(job.model);
    job.ticket.devices = &models_[job.model];
    if (Chance(random_, 0.5)) job.ticket.batch = {&models_[job.model], 10};
    if (queue_.Decide(job.ticket) != Admission::kAccept) return;
    queue_.Push(job.ticket);
    waiting_[job.ticket.id] = job;
  }

  bool CanRun(const Job& job, int64_t device) const {
    return models_[job.model].Has(device);
  }
  int64_t NumWorkersBusy(int64_t device) const {
    return std::count_if(heads_.begin(), heads_.end(), [&](JobId id) {
      return running_.at(id).device == device;
    });
  }

  bool SomeIdlerDevice(int64_t device) const {
    for (int64_t other = 0; other < limits_.num_devices; ++other) {
      if (queue_.num_running_on(other) < queue_.num_running_on(device) &&
          NumWorkersBusy(other) < limits_.max_running) {
        return true;
      }
    }
    return false;
  }

  bool Start(int64_t device) {
    const bool free = NumWorkersBusy(device) < limits_.max_running;
    const bool some_fit = std::any_of(
        waiting_.begin(), waiting_.end(),
        [&](const auto& one) { return CanRun(one.second, device); });
    const int64_t bytes = queue_.running_bytes(device);
    const auto id = queue_.Pick(device);
    if (!id) {
      // It waits for a worker or for memory of this very device, or another one
      // that has less to do will start it.
      EXPECT_TRUE(!free || !some_fit || bytes > 0 || SomeIdlerDevice(device));
      return false;
    }
    EXPECT_TRUE(free);
    Move(*id, device);
    heads_.insert(*id);
    for (const JobId companion : queue_.PickCompanions(*id, batch_)) {
      EXPECT_EQ(running_.at(*id).model, waiting_.at(companion).model);
      Move(companion, device);
      companions_[*id].push_back(companion);
    }
    return true;
  }
  void Move(JobId id, int64_t device) {
    const auto job = waiting_.find(id);
    ASSERT_NE(job, waiting_.end());
    EXPECT_TRUE(CanRun(job->second, device)) << "it can't run there";
    // Of a client, the first that can run there goes first.
    for (const auto& [other, earlier] : waiting_) {
      if (other >= id) break;
      EXPECT_FALSE(earlier.ticket.client == job->second.ticket.client &&
                   CanRun(earlier, device))
          << "a client's jobs changed their order";
    }
    job->second.device = device;
    running_.insert(waiting_.extract(job));
  }

  // No device with a free worker and nothing in memory leaves a job alone.
  void ExpectNothingIsLeftToDo() const {
    for (int64_t device = 0; device < limits_.num_devices; ++device) {
      if (queue_.num_running_on(device) > 0) continue;
      for (const auto& [id, job] : waiting_) {
        EXPECT_FALSE(CanRun(job, device)) << "job " << id << " is left alone";
      }
    }
  }

  void End() {
    if (heads_.empty()) return;
    const auto head =
        std::next(heads_.begin(), Pick(random_, 0, std::ssize(heads_) - 1));
    for (const JobId id : companions_[*head]) {
      queue_.End(id);
      running_.erase(id);
    }
    companions_.erase(*head);
    queue_.End(*head);
    running_.erase(*head);
    heads_.erase(head);
  }

  bool SomeIdleDevice() const {
    for (int64_t device = 0; device < limits_.num_devices; ++device) {
      if (queue_.num_running_on(device) == 0) return true;
    }
    return false;
  }

  void Check() const {
    EXPECT_EQ(queue_.num_waiting(), std::ssize(waiting_));
    EXPECT_EQ(queue_.num_running(), std::ssize(running_));
    for (int64_t device = 0; device < limits_.num_devices; ++device) {
      int64_t num_running = 0, bytes = 0;
      for (const auto& [id, job] : running_) {
        if (job.device != device) continue;
        ++num_running;
        bytes += job.ticket.bytes;
      }
      EXPECT_EQ(queue_.num_running_on(device), num_running);
      EXPECT_EQ(queue_.running_bytes(device), bytes);
      EXPECT_LE(bytes, limits_.max_running_bytes);
      EXPECT_LE(NumWorkersBusy(device), limits_.max_running);
    }
    for (const auto& [model, seconds] : queue_.Starved()) {
      const DeviceSet& devices = models_[std::stoll(model)];
      bool free_here = false, free_elsewhere = false;
      for (int64_t device = 0; device < limits_.num_devices; ++device) {
        const bool free = NumWorkersBusy(device) < limits_.max_running;
        (devices.Has(device) ? free_here : free_elsewhere) |= free;
      }
      // Of jobs that run it is known where they could when they began.
      EXPECT_TRUE((!free_here && free_elsewhere) || SomeIdleDevice());
      EXPECT_GT(seconds, 0);
    }
  }

  Random random_;
  const QueueLimits limits_;
  FairQueue queue_;
  BatchLimits batch_;
  DeviceSet models_[kNumModels];
  JobId last_id_ = 0;
  std::map<JobId, Job> waiting_, running_;
  std::set<JobId> heads_;  // of batches, which hold a worker each
  std::map<JobId, std::vector<JobId>> companions_;
};

TEST(DeviceQueueSimulationTest, JobsRunWhereTheyCan) {
  testing::ForEachSeed(kNumSchedules, "the queue of several devices",
                       [](uint64_t seed) { DeviceSchedule(seed).Run(); });
}

}  // namespace
}  // namespace limpid
