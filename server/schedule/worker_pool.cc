// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/worker_pool.h"

#include <utility>

#include "absl/time/clock.h"

namespace limpid {
namespace {

// Share of the newest job in the running mean of run times.
constexpr double kNewest = 0.2;

// A job must not take the pool down with it; what it threw was its own affair.
void RunGuarded(const Job& job, const absl::Status& admission) {
  try {
    job.run(admission);
  } catch (...) {
  }
}

}  // namespace

WorkerPool::WorkerPool(const WorkerPoolOptions& options) : options_(options) {
  threads_.reserve(options_.num_workers);
  for (int64_t i = 0; i < options_.num_workers; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

WorkerPool::~WorkerPool() {
  Drain(absl::InfinitePast(), absl::InfiniteFuture());
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  work_available_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<JobId> WorkerPool::Submit(Job job) {
  JobId id = 0;
  int64_t num_queued = 0;
  {
    MutexLock lock(mutex_);
    const PoolLoad load = LoadLocked();
    const Admission admission = Decide(load);
    if (admission != Admission::kAccept) return RefusalStatus(admission, load);
    id = next_id_++;
    queue_.emplace(id, std::move(job));
    num_queued = static_cast<int64_t>(queue_.size());
  }
  work_available_.notify_one();
  ReportQueue(num_queued);
  return id;
}

void WorkerPool::Cancel(JobId id) {
  Job job;
  int64_t num_queued = 0;
  {
    MutexLock lock(mutex_);
    if (auto running = running_.find(id); running != running_.end()) {
      running->second.Cancel();
      return;
    }
    auto waiting = queue_.find(id);
    if (waiting == queue_.end()) return;
    job = std::move(waiting->second);
    queue_.erase(waiting);
    ++num_ending_;
    num_queued = static_cast<int64_t>(queue_.size());
  }
  ReportQueue(num_queued);
  job.cancel.Cancel();
  RunGuarded(job, job.cancel.Check());
  job.run = nullptr;
  {
    MutexLock lock(mutex_);
    --num_ending_;
  }
  maybe_idle_.notify_all();
}

void WorkerPool::Work() {
  while (true) {
    JobId id = 0;
    Job job;
    int64_t num_queued = 0;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) lock.Wait(work_available_);
      if (queue_.empty()) return;
      auto first = queue_.begin();
      id = first->first;
      job = std::move(first->second);
      queue_.erase(first);
      running_.emplace(id, job.cancel);
      num_queued = static_cast<int64_t>(queue_.size());
    }
    ReportQueue(num_queued);
    const absl::Status admission = job.cancel.Check();
    const absl::Time start = options_.clock->Now();
    RunGuarded(job, admission);
    const absl::Duration took = options_.clock->Now() - start;
    // What the job holds goes before it counts as ended.
    job.run = nullptr;
    {
      MutexLock lock(mutex_);
      running_.erase(id);
      if (admission.ok()) {
        mean_run_time_ = mean_run_time_ == absl::ZeroDuration()
                             ? took
                             : mean_run_time_ * (1 - kNewest) + took * kNewest;
      }
    }
    maybe_idle_.notify_all();
  }
}

void WorkerPool::StopAdmission() {
  MutexLock lock(mutex_);
  draining_ = true;
}

bool WorkerPool::Drain(absl::Time finish_by, absl::Time give_up_at) {
  StopAdmission();
  if (WaitIdle(finish_by)) return true;
  CancelAll();
  return WaitIdle(give_up_at);
}

void WorkerPool::CancelAll() {
  std::map<JobId, Job> waiting;
  {
    MutexLock lock(mutex_);
    waiting.swap(queue_);
    num_ending_ += static_cast<int64_t>(waiting.size());
    for (auto& [id, token] : running_) token.Cancel();
  }
  ReportQueue(0);
  for (auto& [id, job] : waiting) {
    RunGuarded(job, DrainingStatus());
    job.run = nullptr;
  }
  {
    MutexLock lock(mutex_);
    num_ending_ -= static_cast<int64_t>(waiting.size());
  }
  maybe_idle_.notify_all();
}

bool WorkerPool::WaitIdle(absl::Time limit) {
  MutexLock lock(mutex_);
  while (!IdleLocked()) {
    if (limit == absl::InfiniteFuture()) {
      lock.Wait(maybe_idle_);
    } else if (!lock.WaitUntil(maybe_idle_, absl::ToChronoTime(limit))) {
      return IdleLocked();
    }
  }
  return true;
}

bool WorkerPool::IdleLocked() const {
  return queue_.empty() && running_.empty() && num_ending_ == 0;
}

PoolLoad WorkerPool::load() const {
  MutexLock lock(mutex_);
  return LoadLocked();
}

PoolLoad WorkerPool::LoadLocked() const {
  PoolLoad load;
  load.num_workers = options_.num_workers;
  load.max_queue_size = options_.max_queue_size;
  load.num_queued = static_cast<int64_t>(queue_.size());
  load.num_running = static_cast<int64_t>(running_.size());
  load.draining = draining_;
  load.mean_run_time = mean_run_time_;
  return load;
}

void WorkerPool::ReportQueue(int64_t num_queued) const {
  if (options_.observer != nullptr) options_.observer->OnQueueSize(num_queued);
}

}  // namespace limpid
