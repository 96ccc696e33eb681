// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <system_error>

#include "absl/time/clock.h"

namespace limpid {
namespace {

// Share of the newest job in the running mean of run times.
constexpr double kNewest = 0.2;
// The clock may be set while a deadline is waited for.
constexpr absl::Duration kLongestSleep = absl::Seconds(10);
// How long after the last pause threads beyond those needed stay.
constexpr std::chrono::seconds kSpareThreadStays(2);
// Estimate of the longest job that its submitter may run: it has other things
// to do, and for longer ones the way to a worker is nothing.
constexpr double kLongestLent = 5e-3;
// Threads that may ever run jobs of theirs: one that has computed holds buffers
// of megabytes, and on a CPU helpers.
constexpr size_t kMostLenders = 4;

// A job must not take the pool down with it; what it threw was its own affair.
void RunGuarded(const Job& job, const absl::Status& admission,
                int64_t device = 0) {
  try {
    job.run(admission, device);
  } catch (...) {
  }
}

absl::Time LatestStartOf(const Job& job) {
  return LatestStart(job.cancel.deadline(), job.ticket.seconds);
}

}  // namespace

JobId NewJobId() {
  static std::atomic<JobId> last{0};
  return ++last;
}

WorkerPool::WorkerPool(const WorkerPoolOptions& options)
    : options_(options), queue_(options.limits) {
  for (int64_t device = 0; device < options_.limits.num_devices; ++device) {
    workers_.push_back(std::make_unique<Workers>());
  }
  MutexLock lock(mutex_);
  for (int64_t device = 0; device < options_.limits.num_devices; ++device) {
    for (int64_t i = 0; i < options_.limits.max_running; ++i) {
      workers_[device]->threads.emplace_back([this, device] { Work(device); });
    }
  }
  watcher_ = std::thread([this] { WatchDeadlines(); });
}

WorkerPool::~WorkerPool() {
  Drain(absl::InfinitePast(), absl::InfiniteFuture());
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    for (const auto& workers : workers_) {
      for (std::thread& thread : workers->threads) {
        threads.push_back(std::move(thread));
      }
      workers->threads.clear();
    }
    JoinThoseThatLeft();
  }
  WakeWorkers();
  deadline_changed_.notify_all();
  for (std::thread& thread : threads) thread.join();
  watcher_.join();
}

void WorkerPool::WakeWorkers() {
  for (const auto& workers : workers_) workers->work_available.notify_all();
}

absl::StatusOr<JobId> WorkerPool::Submit(Job job, OwnTurn* own_turn) {
  const JobId id = job.ticket.id;
  std::optional<DeviceSet> devices;
  if (job.ticket.devices != nullptr) devices.emplace(*job.ticket.devices);
  const absl::Time latest_start = LatestStartOf(job);
  int64_t num_waiting = 0;
  bool before_next_look = false;
  {
    MutexLock lock(mutex_);
    if (draining_) return DrainingStatus();
    // Under the lock, so that none slips between this and Cancel.
    LIMPID_RETURN_IF_ERROR(job.cancel.Check());
    LIMPID_RETURN_IF_ERROR(CheckStart(job.cancel.deadline(), job.ticket.seconds,
                                      options_.clock->Now()));
    const Admission admission = queue_.Decide(job.ticket);
    if (admission != Admission::kAccept) {
      return RefusalStatus(admission, job.ticket, LoadLocked());
    }
    queue_.Push(job.ticket);
    const Ticket ticket = job.ticket;
    waiting_.emplace(id, Waiting{std::move(job), latest_start});
    if (own_turn != nullptr) {
      if (std::optional<Turn> turn = Lend(ticket)) {
        // Functions must be copyable.
        *own_turn = [this, turn = std::make_shared<Turn>(*std::move(turn))] {
          RunLent(std::move(*turn));
        };
        return id;
      }
    }
    if (latest_start != absl::InfiniteFuture()) {
      starts_.emplace(latest_start, id);
      before_next_look = latest_start < next_look_;
    }
    num_waiting = queue_.num_waiting();
  }
  for (int64_t device = 0; device < std::ssize(workers_); ++device) {
    if (devices && !devices->Has(device)) continue;
    workers_[device]->work_available.notify_one();
  }
  job_came_.notify_all();
  if (before_next_look) deadline_changed_.notify_one();
  ReportQueue(num_waiting);
  return id;
}

std::optional<WorkerPool::Turn> WorkerPool::Lend(const Ticket& ticket) {
  const std::thread::id self = std::this_thread::get_id();
  const bool may_lend =
      !lent_ && ticket.seconds <= kLongestLent && queue_.num_waiting() == 1 &&
      queue_.num_running() == 0 &&
      (lenders_.count(self) > 0 || lenders_.size() < kMostLenders) &&
      // Others are not about to come, either.
      (ticket.batch.group == nullptr || ticket.batch.group != last_group_ ||
       SizeToWaitFor(last_size_, options_.batch) <= 1);
  if (!may_lend) return std::nullopt;
  for (int64_t device = 0; device < std::ssize(workers_); ++device) {
    if (workers_[device]->num_warm < options_.limits.max_running) continue;
    if (!queue_.Pick(device)) continue;
    lent_ = true;
    lenders_.insert(self);
    if (ticket.batch.group != nullptr) {
      last_group_ = ticket.batch.group;
      last_size_ = 1;
    }
    Turn turn;
    turn.jobs.push_back(Begin(ticket.id));
    turn.device = device;
    turn.num_running = 1;
    return turn;
  }
  return std::nullopt;
}

void WorkerPool::RunLent(Turn turn) {
  Run(std::move(turn));
  MutexLock lock(mutex_);
  lent_ = false;
  // With the lock: the pool may go as soon as it is idle.
  maybe_idle_.notify_all();
}

Job WorkerPool::TakeOut(JobId id) {
  const auto it = waiting_.find(id);
  Job job = std::move(it->second.job);
  starts_.erase({it->second.latest_start, id});
  waiting_.erase(it);
  return job;
}

void WorkerPool::FinishEnding(std::vector<std::pair<Job, absl::Status>> jobs) {
  if (jobs.empty()) return;
  for (auto& [job, why] : jobs) {
    RunGuarded(job, why);
    // What the job holds goes before it counts as ended.
    job.run = nullptr;
  }
  int64_t num_waiting = 0;
  {
    MutexLock lock(mutex_);
    num_ending_ -= static_cast<int64_t>(jobs.size());
    num_waiting = queue_.num_waiting();
  }
  // One that waited for memory may have kept others from starting.
  WakeWorkers();
  maybe_idle_.notify_all();
  ReportQueue(num_waiting);
}

void WorkerPool::Cancel(JobId id) {
  std::vector<std::pair<Job, absl::Status>> ending;
  {
    MutexLock lock(mutex_);
    if (auto running = running_.find(id); running != running_.end()) {
      running->second.Cancel();
      return;
    }
    if (!queue_.Remove(id)) return;
    Job job = TakeOut(id);
    job.cancel.Cancel();
    ++num_ending_;
    const absl::Status why = job.cancel.Check();
    ending.emplace_back(std::move(job), why);
  }
  FinishEnding(std::move(ending));
}

void WorkerPool::Pause(JobId id) {
  {
    MutexLock lock(mutex_);
    queue_.SetPaused(id, true);
    last_pause_ = std::chrono::steady_clock::now();
    JoinThoseThatLeft();
    for (int64_t device = 0; device < std::ssize(workers_); ++device) {
      if (NumSpareThreads(device) >= 0) continue;
      try {
        workers_[device]->threads.emplace_back(
            [this, device] { Work(device); });
      } catch (const std::system_error&) {
        // Without another thread others wait, as they would without Pause.
      }
    }
  }
  WakeWorkers();
}

void WorkerPool::Resume(JobId id) {
  {
    MutexLock lock(mutex_);
    queue_.SetPaused(id, false);
  }
  // Its client may start jobs again.
  WakeWorkers();
}

Job WorkerPool::Begin(JobId id) {
  Job job = TakeOut(id);
  running_.emplace(id, job.cancel);
  return job;
}

void WorkerPool::Gather(std::vector<Job>& jobs, MutexLock& lock) {
  const BatchKey key = jobs.front().ticket.batch;
  BatchLimits limits = options_.batch;
  if (key.group == nullptr || limits.max_size <= 1) return;
  const JobId head = jobs.front().ticket.id;
  const absl::Time now = options_.clock->Now();
  // As far as estimates go, companions don't cost the first its deadline.
  limits.max_seconds =
      std::min(limits.max_seconds,
               absl::ToDoubleSeconds(jobs.front().cancel.deadline() - now));
  const int64_t wanted =
      SizeToWaitFor(key.group == last_group_ ? last_size_ : 1, limits);
  const auto until = std::chrono::steady_clock::now() +
                     absl::ToChronoNanoseconds(std::min(
                         limits.max_wait, LatestStartOf(jobs.front()) - now));
  for (bool in_time = true;;) {
    for (const JobId id : queue_.PickCompanions(head, limits)) {
      jobs.push_back(Begin(id));
    }
    if (!in_time || draining_ || std::ssize(jobs) >= wanted) break;
    in_time = lock.WaitUntil(job_came_, until);
  }
  last_group_ = key.group;
  last_size_ = std::ssize(jobs);
}

int64_t WorkerPool::RunBegun(const std::vector<Job>& jobs,
                             int64_t device) const {
  std::vector<const Job*> admitted;
  const absl::Time now = options_.clock->Now();
  for (const Job& job : jobs) {
    absl::Status admission = job.cancel.Check();
    if (admission.ok()) {
      admission = CheckStart(job.cancel.deadline(), job.ticket.seconds, now);
    }
    if (admission.ok()) {
      admitted.push_back(&job);
    } else {
      RunGuarded(job, admission);
    }
  }
  if (admitted.empty()) return 0;
  if (options_.observer != nullptr)
    options_.observer->OnBatch(std::ssize(admitted));
  if (admitted.size() == 1) {
    RunGuarded(*admitted.front(), absl::OkStatus(), device);
    return 1;
  }
  std::vector<BatchWork*> others;
  for (size_t i = 1; i < admitted.size(); ++i) {
    others.push_back(admitted[i]->batch.get());
  }
  try {
    admitted.front()->batch->RunWith(others, device);
  } catch (...) {
  }
  return std::ssize(admitted);
}

int64_t WorkerPool::NumSpareThreads(int64_t device) const {
  const int64_t wanted =
      options_.limits.max_running +
      std::min(queue_.num_paused(device), options_.limits.max_paused);
  return std::ssize(workers_[device]->threads) - wanted;
}

void WorkerPool::JoinThoseThatLeft() {
  for (std::thread& thread : left_) thread.join();
  left_.clear();
}

std::optional<JobId> WorkerPool::WaitForJob(int64_t device, MutexLock& lock) {
  std::condition_variable& work_available = workers_[device]->work_available;
  while (true) {
    const std::optional<JobId> id = queue_.Pick(device);
    if (id || stopping_) return id;
    const auto leave_at = last_pause_ + kSpareThreadStays;
    if (NumSpareThreads(device) <= 0) {
      lock.Wait(work_available);
    } else if (std::chrono::steady_clock::now() < leave_at) {
      lock.WaitUntil(work_available, leave_at);
    } else {
      Leave(device);
      return std::nullopt;
    }
  }
}

void WorkerPool::Leave(int64_t device) {
  std::vector<std::thread>& threads = workers_[device]->threads;
  const auto self = std::find_if(
      threads.begin(), threads.end(), [](const std::thread& thread) {
        return thread.get_id() == std::this_thread::get_id();
      });
  left_.push_back(std::move(*self));
  threads.erase(self);
}

void WorkerPool::Work(int64_t device) {
  for (bool is_warm = false;; is_warm = true) {
    Turn turn;
    turn.device = device;
    {
      MutexLock lock(mutex_);
      const std::optional<JobId> id = WaitForJob(device, lock);
      if (!id) return;
      if (!is_warm) ++workers_[device]->num_warm;
      turn.jobs.push_back(Begin(*id));
      Gather(turn.jobs, lock);
      turn.num_waiting = queue_.num_waiting();
      turn.num_running = queue_.num_running_on(device);
    }
    Run(std::move(turn));
  }
}

void WorkerPool::Run(Turn turn) {
  // Some may have been left to this device, which has more to do now.
  if (turn.num_waiting > 0 && workers_.size() > 1) WakeWorkers();
  ReportQueue(turn.num_waiting);
  ReportRunning(turn.device, turn.num_running);
  const absl::Time start = options_.clock->Now();
  const int64_t num_run = RunBegun(turn.jobs, turn.device);
  const absl::Duration took = options_.clock->Now() - start;
  std::vector<JobId> ended;
  for (const Job& job : turn.jobs) ended.push_back(job.ticket.id);
  // What the jobs hold goes before they count as ended.
  turn.jobs.clear();
  bool others_wait = false;
  int64_t num_running = 0;
  {
    MutexLock lock(mutex_);
    for (const JobId id : ended) {
      queue_.End(id);
      running_.erase(id);
    }
    others_wait = queue_.num_waiting() > 0;
    num_running = queue_.num_running_on(turn.device);
    if (num_run > 0) {
      const absl::Duration each = took / num_run;
      mean_run_time_ = mean_run_time_ == absl::ZeroDuration()
                           ? each
                           : mean_run_time_ * (1 - kNewest) + each * kNewest;
    }
  }
  ReportRunning(turn.device, num_running);
  // Memory for more than one job may have become free, and a client whose
  // paused jobs were too many may go on, on any device.
  if (others_wait) WakeWorkers();
  maybe_idle_.notify_all();
}

std::vector<std::pair<Job, absl::Status>> WorkerPool::TakeLate(absl::Time now) {
  std::vector<std::pair<Job, absl::Status>> late;
  while (!starts_.empty() && starts_.begin()->first <= now) {
    const JobId id = starts_.begin()->second;
    Waiting& waiting = waiting_.at(id);
    const absl::Time latest_start = LatestStartOf(waiting.job);
    if (latest_start > now) {  // somebody with more time has come
      starts_.erase(starts_.begin());
      waiting.latest_start = latest_start;
      starts_.emplace(latest_start, id);
      continue;
    }
    queue_.Remove(id);
    Job job = TakeOut(id);
    ++num_ending_;
    const absl::Status why =
        CheckStart(job.cancel.deadline(), job.ticket.seconds, now);
    late.emplace_back(std::move(job), why);
  }
  return late;
}

void WorkerPool::WatchDeadlines() {
  while (true) {
    std::vector<std::pair<Job, absl::Status>> late;
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      const absl::Time now = options_.clock->Now();
      late = TakeLate(now);
      // Jobs that were in time are forgotten at the next look and not before:
      // most never wait, and none of them is worth a switch of threads.
      if (late.empty() && starts_.empty()) {
        next_look_ = absl::InfiniteFuture();
        lock.Wait(deadline_changed_);
      } else if (late.empty()) {
        const absl::Duration sleep =
            std::min(starts_.begin()->first - now, kLongestSleep);
        next_look_ = now + sleep;
        lock.WaitUntil(deadline_changed_, std::chrono::steady_clock::now() +
                                              absl::ToChronoNanoseconds(sleep));
      }
    }
    FinishEnding(std::move(late));
  }
}

void WorkerPool::StopAdmission() {
  {
    MutexLock lock(mutex_);
    draining_ = true;
  }
  job_came_.notify_all();
}

bool WorkerPool::Drain(absl::Time finish_by, absl::Time give_up_at) {
  StopAdmission();
  if (WaitIdle(finish_by)) return true;
  CancelAll();
  return WaitIdle(give_up_at);
}

void WorkerPool::CancelAll() {
  std::vector<std::pair<Job, absl::Status>> ending;
  {
    MutexLock lock(mutex_);
    while (!waiting_.empty()) {
      const JobId id = waiting_.begin()->first;
      queue_.Remove(id);
      ending.emplace_back(TakeOut(id), DrainingStatus());
    }
    num_ending_ += static_cast<int64_t>(ending.size());
    for (auto& [id, token] : running_) token.Cancel();
  }
  FinishEnding(std::move(ending));
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
  return waiting_.empty() && running_.empty() && num_ending_ == 0 && !lent_;
}

PoolLoad WorkerPool::load() const {
  MutexLock lock(mutex_);
  return LoadLocked();
}

PoolLoad WorkerPool::LoadLocked() const {
  PoolLoad load;
  load.limits = queue_.limits();
  load.num_waiting = queue_.num_waiting();
  load.num_running = queue_.num_running();
  load.waiting_seconds = queue_.waiting_seconds();
  load.draining = draining_;
  load.mean_run_time = mean_run_time_;
  return load;
}

std::map<std::string, double> WorkerPool::Starved() const {
  MutexLock lock(mutex_);
  return queue_.Starved();
}

void WorkerPool::ReportRunning(int64_t device, int64_t num_running) const {
  if (options_.observer != nullptr) {
    options_.observer->OnRunning(device, num_running);
  }
}

void WorkerPool::ReportQueue(int64_t num_waiting) const {
  if (options_.observer != nullptr) options_.observer->OnQueueSize(num_waiting);
}

}  // namespace limpid
