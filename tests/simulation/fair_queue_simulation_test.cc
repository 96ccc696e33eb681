// SPDX-License-Identifier: Apache-2.0
//
// Random schedules of arrivals, starts, pauses, ends and cancellations against
// a FairQueue, with what it promises checked after every step.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "server/schedule/fair_queue.h"
#include "tests/simulation/seeds.h"

namespace limpid {
namespace {

using testing::Chance;
using testing::Pick;
using testing::Random;

constexpr int64_t kNumSchedules = 100000;
// How often others may pass the first in line while memory is short.
constexpr int kMaxOvertakes = 8;

class QueueSchedule {
 public:
  explicit QueueSchedule(uint64_t seed)
      : random_(seed), limits_(RandomLimits(random_)), queue_(limits_) {
    // Without it the shares are exact, else memory has a say in them.
    memory_matters_ = Chance(random_, 0.5);
    one_priority_ = Chance(random_, 0.5);
  }

  void Run() {
    const int64_t num_steps = Pick(random_, 10, 60);
    const double arrivals = std::uniform_real_distribution<>(0.3, 0.9)(random_);
    for (int64_t i = 0; i < num_steps; ++i) {
      if (Chance(random_, arrivals)) {
        Arrive();
      } else if (Chance(random_, 0.15)) {
        Cancel();
      } else if (Chance(random_, 0.2)) {
        Pause();
      } else if (Chance(random_, 0.5)) {
        Start();
      } else {
        End();
      }
      Check();
    }
    while (!jobs_.empty()) {
      if (!Start()) {
        ASSERT_FALSE(running_.empty()) << "jobs wait although nothing runs";
        End();
      }
      Check();
    }
    EXPECT_EQ(num_accepted_, num_ended_);
  }

 private:
  static QueueLimits RandomLimits(Random& random) {
    QueueLimits limits;
    limits.max_running = Pick(random, 1, 4);
    limits.max_waiting = Pick(random, 1, 20);
    limits.max_waiting_of_client = Pick(random, 1, limits.max_waiting);
    limits.max_waiting_seconds = static_cast<double>(Pick(random, 5, 100));
    limits.max_running_bytes = Pick(random, 10, 30);
    limits.max_paused = Pick(random, 0, 3);
    limits.max_paused_of_client = Pick(random, 1, 2);
    return limits;
  }

  void Arrive() {
    Ticket ticket;
    ticket.id = ++last_id_;
    ticket.client =
        std::string(1, static_cast<char>('a' + Pick(random_, 0, 3)));
    if (!one_priority_) {
      ticket.priority = static_cast<Priority>(Pick(random_, 0, 2));
    }
    ticket.seconds = static_cast<double>(Pick(random_, 1, 10));
    if (memory_matters_) ticket.bytes = Pick(random_, 0, 35);
    const Admission admission = queue_.Decide(ticket);
    EXPECT_EQ(admission == Admission::kTooLarge,
              ticket.bytes > limits_.max_running_bytes);
    if (admission != Admission::kAccept) return;
    queue_.Push(ticket);
    jobs_[ticket.id] = ticket;
    ++num_accepted_;
  }

  bool Start() {
    const auto id = queue_.Pick();
    if (!id) {
      // Whoever is next waits for a worker, for memory or for its own paused
      // jobs, nothing else.
      EXPECT_TRUE(num_waiting() == 0 || !running_.empty());
      return false;
    }
    const auto job = jobs_.find(*id);
    EXPECT_TRUE(job != jobs_.end() && running_.count(*id) == 0)
        << "job " << *id << " was started twice or after its end";
    if (job == jobs_.end()) return false;
    const Ticket started = job->second;
    EXPECT_FALSE(IsHeldBack(started.client)) << "too many of it pause";
    EXPECT_LT(running_.size() - paused_.size(), limits_.max_running);
    CheckOrder(started);
    running_.insert(*id);
    CountService(started);
    return true;
  }

  void Pause() {
    if (running_.empty()) return;
    const JobId id =
        *std::next(running_.begin(),
                   Pick(random_, 0, static_cast<int64_t>(running_.size()) - 1));
    const bool pauses = paused_.count(id) == 0;
    queue_.SetPaused(id, pauses);
    pauses ? (void)paused_.insert(id) : (void)paused_.erase(id);
    // A client that is held back loses its share.
    leads_.clear();
  }

  bool IsHeldBack(const std::string& client) const {
    return std::count_if(paused_.begin(), paused_.end(), [&](JobId id) {
             return jobs_.at(id).client == client;
           }) >= limits_.max_paused_of_client;
  }

  // Called before `started` counts as running.
  void CheckOrder(const Ticket& started) {
    const int64_t free_bytes = limits_.max_running_bytes - RunningBytes();
    // The first waiting job of each client in each priority.
    std::map<std::pair<Priority, std::string>, const Ticket*> heads;
    for (const auto& [id, job] : jobs_) {
      if (running_.count(id) == 0 && !IsHeldBack(job.client)) {
        heads.try_emplace({job.priority, job.client}, &job);
      }
    }
    for (const auto& [place, head] : heads) {
      if (place == std::make_pair(started.priority, started.client)) {
        EXPECT_EQ(head->id, started.id)
            << "a client's jobs changed their order";
      } else if (place.first < started.priority) {
        EXPECT_GT(head->bytes, free_bytes)
            << "a lower priority went first without need";
      }
    }
    // Alone in the highest priority, a job is the first in line.
    const auto& [place, first] = *heads.begin();
    const auto next = std::next(heads.begin());
    const bool alone = next == heads.end() || next->first.first != place.first;
    if (alone && first->id != started.id) {
      EXPECT_LE(++overtakes_[first->id], kMaxOvertakes)
          << "job " << first->id << " starves";
    }
  }

  // Two clients that both have jobs waiting all the time get the same service
  // within one job of each.
  void CountService(const Ticket& started) {
    if (memory_matters_ || !one_priority_) return;
    if (!paused_.empty()) return leads_.clear();
    for (auto& [pair, lead] : leads_) {
      if (pair.first == started.client) lead += started.seconds;
      if (pair.second == started.client) lead -= started.seconds;
    }
    std::set<std::string> backlogged;
    for (const auto& [id, job] : jobs_) {
      if (running_.count(id) == 0) backlogged.insert(job.client);
    }
    for (auto it = leads_.begin(); it != leads_.end();) {
      const auto& [a, b] = it->first;
      EXPECT_LE(std::abs(it->second), 20) << a << " against " << b;
      const bool both = backlogged.count(a) > 0 && backlogged.count(b) > 0;
      it = both ? std::next(it) : leads_.erase(it);
    }
    for (const std::string& a : backlogged) {
      for (const std::string& b : backlogged) {
        if (a < b) leads_.try_emplace({a, b}, 0);
      }
    }
  }

  void End() {
    if (running_.empty()) return;
    const auto it =
        std::next(running_.begin(),
                  Pick(random_, 0, static_cast<int64_t>(running_.size()) - 1));
    queue_.End(*it);
    paused_.erase(*it);
    jobs_.erase(*it);
    running_.erase(it);
    ++num_ended_;
  }

  void Cancel() {
    if (jobs_.empty()) return;
    const auto it =
        std::next(jobs_.begin(),
                  Pick(random_, 0, static_cast<int64_t>(jobs_.size()) - 1));
    const bool waits = running_.count(it->first) == 0;
    EXPECT_EQ(queue_.Remove(it->first), waits);
    if (!waits) return;
    jobs_.erase(it);
    ++num_ended_;
    // A client whose last waiting job is gone starts anew.
    leads_.clear();
  }

  void Check() {
    EXPECT_EQ(queue_.num_waiting(), num_waiting());
    EXPECT_EQ(queue_.num_running(), static_cast<int64_t>(running_.size()));
    EXPECT_EQ(queue_.num_paused(), static_cast<int64_t>(paused_.size()));
    EXPECT_LE(queue_.num_running(), limits_.max_running + limits_.max_paused);
    EXPECT_LE(queue_.num_waiting(),
              limits_.max_waiting + limits_.max_running + queue_.num_paused());
    EXPECT_EQ(queue_.running_bytes(), RunningBytes());
    EXPECT_LE(RunningBytes(), limits_.max_running_bytes);
    double seconds = 0;
    for (const auto& [id, job] : jobs_) {
      if (running_.count(id) == 0) seconds += job.seconds;
    }
    EXPECT_DOUBLE_EQ(queue_.waiting_seconds(), seconds);
  }

  int64_t RunningBytes() const {
    int64_t bytes = 0;
    for (const JobId id : running_) bytes += jobs_.at(id).bytes;
    return bytes;
  }
  int64_t num_waiting() const {
    return static_cast<int64_t>(jobs_.size() - running_.size());
  }

  Random random_;
  const QueueLimits limits_;
  FairQueue queue_;
  bool memory_matters_ = false;
  bool one_priority_ = false;
  JobId last_id_ = 0;
  std::map<JobId, Ticket> jobs_;  // accepted and not ended
  std::set<JobId> running_;
  std::set<JobId> paused_;  // of the running ones
  std::map<JobId, int> overtakes_;
  int64_t num_accepted_ = 0;
  int64_t num_ended_ = 0;
  // Service of the first less that of the second since both have waited.
  std::map<std::pair<std::string, std::string>, double> leads_;
};

TEST(FairQueueSimulationTest, KeepsItsPromisesInRandomSchedules) {
  testing::ForEachSeed(kNumSchedules, "the fair queue",
                       [](uint64_t seed) { QueueSchedule(seed).Run(); });
}

}  // namespace
}  // namespace limpid
