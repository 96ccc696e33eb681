// SPDX-License-Identifier: Apache-2.0
//
// Random schedules of arrivals, starts, batches, pauses, ends and cancellations
// against a FairQueue, with what it promises checked after every step.
#include <algorithm>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

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

// Whose addresses stand for models.
constexpr int kGroups[2] = {};

class QueueSchedule {
 public:
  explicit QueueSchedule(uint64_t seed)
      : random_(seed), limits_(RandomLimits(random_)), queue_(limits_) {
    // Without it the shares are exact, else memory has a say in them.
    memory_matters_ = Chance(random_, 0.5);
    batch_.max_size = Pick(random_, 1, 5);
    batch_.max_positions = Pick(random_, 20, 80);
    batch_.max_seconds = static_cast<double>(Pick(random_, 1, 40));
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
      } else if (Chance(random_, 0.3)) {
        if (!batches_.empty()) {
          Grow(std::next(batches_.begin(),
                         Pick(random_, 0, std::ssize(batches_) - 1))
                   ->first);
        }
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
  int64_t num_companions() const { return num_companions_; }

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
    if (Chance(random_, 0.7)) {
      ticket.batch = {&kGroups[Pick(random_, 0, 1)], Pick(random_, 1, 16)};
    }
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
    EXPECT_LT(num_busy() - std::ssize(paused_), limits_.max_running);
    CheckOrder(started);
    running_.insert(*id);
    batches_[*id] = {*id};
    CountService(started);
    if (Chance(random_, 0.5)) Grow(*id);
    return true;
  }

  // A running job takes companions, perhaps again.
  void Grow(JobId head) {
    std::vector<JobId>& members = batches_.at(head);
    const Ticket* const first = AloneInLine();
    const int64_t free_bytes =
        limits_.max_running_bytes - queue_.running_bytes();
    const int64_t free = std::max<int64_t>(
        0, limits_.max_running + std::ssize(paused_) - num_busy());
    const std::vector<JobId> companions = queue_.PickCompanions(head, batch_);
    if (!companions.empty() && first != nullptr) {
      EXPECT_LE(first->bytes, free_bytes)
          << "jobs joined while the first in line waited for memory";
    }
    for (const JobId id : companions) {
      EXPECT_EQ(paused_.count(head), 0u);
      EXPECT_GT(num_waiting(), free) << "a free worker was left without work";
      const auto job = jobs_.find(id);
      ASSERT_TRUE(job != jobs_.end() && running_.count(id) == 0)
          << "job " << id << " was started twice or after its end";
      EXPECT_FALSE(IsHeldBack(job->second.client)) << "too many of it pause";
      CheckClientsOrder(job->second);
      const int64_t longest = LongestOf(members);
      if (job->second.priority > jobs_.at(head).priority) {
        EXPECT_LE(job->second.batch.length, longest)
            << "a lower priority made the batch longer";
      }
      running_.insert(id);
      members.push_back(id);
      ++num_companions_;
      CountService(job->second);
    }
    CheckBatch(members);
  }

  int64_t LongestOf(const std::vector<JobId>& members) const {
    int64_t longest = 0;
    for (const JobId id : members) {
      longest = std::max(longest, jobs_.at(id).batch.length);
    }
    return longest;
  }

  void CheckBatch(const std::vector<JobId>& members) const {
    if (members.size() == 1) return;
    EXPECT_LE(std::ssize(members), batch_.max_size);
    int64_t positions = 0;
    double seconds = 0;
    for (const JobId id : members) {
      const Ticket& job = jobs_.at(id);
      EXPECT_NE(job.batch.group, nullptr);
      EXPECT_EQ(job.batch.group, jobs_.at(members.front()).batch.group);
      positions += job.batch.length;
      seconds += job.seconds;
    }
    EXPECT_LE(positions, batch_.max_positions);
    EXPECT_LE(seconds, batch_.max_seconds);
  }

  void Pause() {
    if (running_.empty()) return;
    const JobId id =
        *std::next(running_.begin(),
                   Pick(random_, 0, static_cast<int64_t>(running_.size()) - 1));
    // Members of batches don't.
    const auto batch = batches_.find(id);
    if (batch == batches_.end() || batch->second.size() > 1) {
      return queue_.SetPaused(id, true);
    }
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

  // The first waiting job of each client in each priority.
  std::map<std::pair<Priority, std::string>, const Ticket*> Heads() const {
    std::map<std::pair<Priority, std::string>, const Ticket*> heads;
    for (const auto& [id, job] : jobs_) {
      if (running_.count(id) == 0 && !IsHeldBack(job.client)) {
        heads.try_emplace({job.priority, job.client}, &job);
      }
    }
    return heads;
  }

  // Alone in the highest priority, a job is the first in line; null: there is
  // none.
  const Ticket* AloneInLine() const {
    const auto heads = Heads();
    if (heads.empty()) return nullptr;
    const auto next = std::next(heads.begin());
    const bool alone =
        next == heads.end() || next->first.first != heads.begin()->first.first;
    return alone ? heads.begin()->second : nullptr;
  }

  // Called before `started` counts as running.
  void CheckClientsOrder(const Ticket& started) const {
    for (const auto& [id, job] : jobs_) {
      if (running_.count(id) > 0 || job.client != started.client ||
          job.priority != started.priority) {
        continue;
      }
      EXPECT_EQ(id, started.id) << "a client's jobs changed their order";
      return;
    }
  }

  // Called before `started` counts as running.
  void CheckOrder(const Ticket& started) {
    const int64_t free_bytes =
        limits_.max_running_bytes - queue_.running_bytes() + started.bytes;
    for (const auto& [place, head] : Heads()) {
      if (place == std::make_pair(started.priority, started.client)) {
        EXPECT_EQ(head->id, started.id)
            << "a client's jobs changed their order";
      } else if (place.first < started.priority) {
        EXPECT_GT(head->bytes, free_bytes)
            << "a lower priority went first without need";
      }
    }
    const Ticket* const first = AloneInLine();
    if (first != nullptr && first->id != started.id) {
      EXPECT_LE(++overtakes_[first->id], kMaxOvertakes)
          << "job " << first->id << " starves";
    }
  }

  // Two clients that both have jobs waiting all the time get the same service
  // within one job of each, and what the running batches took along that the
  // other's job did not fit into.
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
      EXPECT_LE(std::abs(it->second),
                20 + limits_.max_running * batch_.max_seconds)
          << a << " against " << b;
      const bool both = backlogged.count(a) > 0 && backlogged.count(b) > 0;
      it = both ? std::next(it) : leads_.erase(it);
    }
    for (const std::string& a : backlogged) {
      for (const std::string& b : backlogged) {
        if (a < b) leads_.try_emplace({a, b}, 0);
      }
    }
  }

  // Ends a running job, or all members of a batch.
  void End() {
    if (batches_.empty()) return;
    const auto batch =
        std::next(batches_.begin(),
                  Pick(random_, 0, static_cast<int64_t>(batches_.size()) - 1));
    for (const JobId id : batch->second) {
      queue_.End(id);
      paused_.erase(id);
      jobs_.erase(id);
      running_.erase(id);
      ++num_ended_;
    }
    batches_.erase(batch);
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
    EXPECT_LE(num_busy(), limits_.max_running + limits_.max_paused);
    EXPECT_LE(queue_.num_waiting(),
              limits_.max_waiting + limits_.max_running + queue_.num_paused());
    int64_t bytes = 0;
    for (const JobId id : running_) bytes += jobs_.at(id).bytes;
    EXPECT_EQ(queue_.running_bytes(), bytes);
    EXPECT_LE(bytes, limits_.max_running_bytes);
    double seconds = 0;
    for (const auto& [id, job] : jobs_) {
      if (running_.count(id) == 0) seconds += job.seconds;
    }
    EXPECT_DOUBLE_EQ(queue_.waiting_seconds(), seconds);
  }

  // Workers that running jobs hold, or would if they did not pause.
  int64_t num_busy() const { return std::ssize(batches_); }
  int64_t num_waiting() const {
    return static_cast<int64_t>(jobs_.size() - running_.size());
  }

  Random random_;
  const QueueLimits limits_;
  FairQueue queue_;
  BatchLimits batch_;
  bool memory_matters_ = false;
  bool one_priority_ = false;
  JobId last_id_ = 0;
  std::map<JobId, Ticket> jobs_;  // accepted and not ended
  std::set<JobId> running_;
  std::map<JobId, std::vector<JobId>> batches_;  // of running ones, by head
  std::set<JobId> paused_;                       // of the running ones
  std::map<JobId, int> overtakes_;
  int64_t num_accepted_ = 0;
  int64_t num_ended_ = 0;
  int64_t num_companions_ = 0;
  // Service of the first less that of the second since both have waited.
  std::map<std::pair<std::string, std::string>, double> leads_;
};

TEST(FairQueueSimulationTest, KeepsItsPromisesInRandomSchedules) {
  int64_t num_companions = 0;
  testing::ForEachSeed(kNumSchedules, "the fair queue", [&](uint64_t seed) {
    QueueSchedule schedule(seed);
    schedule.Run();
    num_companions += schedule.num_companions();
  });
  std::cout << "figure: " << num_companions << " jobs joined a batch\n";
}

}  // namespace
}  // namespace limpid
