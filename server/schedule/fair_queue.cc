// SPDX-License-Identifier: Apache-2.0
#include "server/schedule/fair_queue.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace limpid {
namespace {

// Every job costs a little, whatever its estimate says.
constexpr double kMinSeconds = 1e-3;
// How often others may pass the first in line while memory is short.
constexpr int kMaxOvertakes = 8;
// Clients without a waiting job whose past use is remembered.
constexpr size_t kMaxIdleFlows = 1024;

// NaN counts as tiny, too.
double CostOf(double seconds) {
  return seconds > kMinSeconds ? seconds : kMinSeconds;
}

}  // namespace

int64_t FairQueue::NumWaitingOf(const std::string& client) const {
  size_t count = 0;
  for (const Class& of : classes_) {
    const auto flow = of.flows.find(client);
    if (flow != of.flows.end()) count += flow->second.jobs.size();
  }
  return static_cast<int64_t>(count);
}

int64_t FairQueue::NumPausedOf(const std::string& client) const {
  return std::count_if(running_.begin(), running_.end(), [&](const auto& job) {
    return job.second.paused && job.second.client == client;
  });
}

int64_t FairQueue::NumFreeWorkers(int64_t device) const {
  const Device& on = devices_[device];
  return std::max<int64_t>(0, limits_.max_running + on.num_paused +
                                  on.num_companions - on.num_running);
}

int64_t FairQueue::NumFreeWorkersFor(const Ticket& ticket) const {
  int64_t num_free = 0;
  for (int64_t device = 0; device < limits_.num_devices; ++device) {
    if (CanRun(ticket, device)) num_free += NumFreeWorkers(device);
  }
  return num_free;
}

bool FairQueue::HasFreeWorker(int64_t device) const {
  const Device& on = devices_[device];
  return NumFreeWorkers(device) > 0 &&
         on.num_running - on.num_companions <
             limits_.max_running + limits_.max_paused;
}

bool FairQueue::IsBetterElsewhere(const Ticket& ticket, int64_t device) const {
  for (int64_t other = 0; other < limits_.num_devices; ++other) {
    if (devices_[other].running_seconds < devices_[device].running_seconds &&
        CanRun(ticket, other) && HasFreeWorker(other) && Fits(ticket, other)) {
      return true;
    }
  }
  return false;
}

bool FairQueue::Fits(const Ticket& ticket, int64_t device) const {
  return ticket.bytes <=
         limits_.max_running_bytes - devices_[device].running_bytes;
}

Admission FairQueue::Decide(const Ticket& ticket) const {
  if (ticket.bytes > limits_.max_running_bytes) return Admission::kTooLarge;
  const int64_t num_free = NumFreeWorkersFor(ticket);
  if (num_waiting() >= limits_.max_waiting + num_free) {
    return Admission::kQueueFull;
  }
  if (NumWaitingOf(ticket.client) >= limits_.max_waiting_of_client + num_free) {
    return Admission::kClientQueueFull;
  }
  if (num_waiting() > 0 &&
      waiting_seconds_ + CostOf(ticket.seconds) > limits_.max_waiting_seconds) {
    return Admission::kQueueTooLong;
  }
  return Admission::kAccept;
}

void FairQueue::Push(Ticket ticket) {
  ticket.seconds = CostOf(ticket.seconds);
  ticket.bytes = std::max<int64_t>(0, ticket.bytes);
  waiting_seconds_ += ticket.seconds;
  waiting_.emplace(ticket.id, Place{ticket.priority, ticket.client});
  Class& of = ClassOf(ticket.priority);
  Flow& flow = of.flows[ticket.client];
  if (flow.jobs.empty()) flow.tag = std::max(flow.tag, of.virtual_time);
  flow.jobs.push_back({std::move(ticket)});
}

template <typename Suits>
std::optional<FairQueue::Candidate> FairQueue::First(int64_t device,
                                                     const Suits& suits) {
  const bool some_pause =
      std::any_of(devices_.begin(), devices_.end(),
                  [](const Device& on) { return on.num_paused > 0; });
  for (Class& of : classes_) {
    std::optional<Candidate> first;
    for (auto& [client, flow] : of.flows) {
      const auto job = std::find_if(flow.jobs.begin(), flow.jobs.end(),
                                    [&](const Waiting& waiting) {
                                      return CanRun(waiting.ticket, device);
                                    });
      if (job == flow.jobs.end() || !suits(job->ticket)) continue;
      if (some_pause && NumPausedOf(client) >= limits_.max_paused_of_client) {
        continue;
      }
      if (first && std::make_tuple(first->flow->tag, first->ticket().id) <
                       std::make_tuple(flow.tag, job->ticket.id)) {
        continue;
      }
      first = {&of, &flow, static_cast<size_t>(job - flow.jobs.begin())};
    }
    if (first) return first;
  }
  return std::nullopt;
}

std::optional<JobId> FairQueue::Pick(int64_t device) {
  if (!HasFreeWorker(device)) return std::nullopt;
  const auto first = First(device, [&](const Ticket& job) {
    return !IsBetterElsewhere(job, device);
  });
  const auto best = First(device, [&](const Ticket& job) {
    return Fits(job, device) && !IsBetterElsewhere(job, device);
  });
  if (!best) return std::nullopt;
  if (best->flow != first->flow &&
      ++first->waiting().num_overtakes > kMaxOvertakes) {
    return std::nullopt;
  }
  const Ticket ticket = Start(*best, device);
  Running& running = running_.at(ticket.id);
  running.batch = BatchOf(ticket.batch, ticket.seconds);
  return ticket.id;
}

std::vector<JobId> FairQueue::PickCompanions(JobId head,
                                             const BatchLimits& limits) {
  std::vector<JobId> companions;
  Running& running = running_.at(head);
  if (running.paused) return companions;
  const int64_t device = running.device;
  Device& on = devices_[device];
  const auto with = [&](const Ticket& job) {
    return Joined(running.batch, job.batch, job.seconds,
                  /*may_lengthen=*/job.priority <= running.priority, limits);
  };
  while (true) {
    const auto first = First(device, [](const Ticket&) { return true; });
    if (!first || !Fits(first->ticket(), device)) break;
    const auto next = First(device, [&](const Ticket& job) {
      return Fits(job, device) && with(job);
    });
    if (!next || num_waiting() <= NumFreeWorkersFor(next->ticket())) break;
    running.batch = *with(next->ticket());
    const JobId id = Start(*next, device).id;
    running_.at(id).is_companion = true;
    ++on.num_companions;
    companions.push_back(id);
  }
  return companions;
}

Ticket FairQueue::Start(const Candidate& candidate, int64_t device) {
  Class& of = *candidate.of;
  Flow& flow = *candidate.flow;
  const Ticket ticket = std::move(candidate.waiting().ticket);
  flow.jobs.erase(flow.jobs.begin() +
                  static_cast<std::ptrdiff_t>(candidate.index));
  of.virtual_time = std::max(of.virtual_time, flow.tag);
  flow.tag += ticket.seconds;
  waiting_.erase(ticket.id);
  waiting_seconds_ = waiting_.empty() ? 0 : waiting_seconds_ - ticket.seconds;
  Running& running = running_[ticket.id];
  running.client = ticket.client;
  running.priority = ticket.priority;
  running.bytes = ticket.bytes;
  running.device = device;
  running.seconds = ticket.seconds;
  running.model = ticket.model;
  if (ticket.devices != nullptr) running.devices.emplace(*ticket.devices);
  Device& on = devices_[device];
  ++on.num_running;
  on.running_bytes += ticket.bytes;
  on.running_seconds += ticket.seconds;
  ForgetIdle(of);
  return ticket;
}

// A client that has nothing waiting and has used no more than its share is like
// one that never came.
void FairQueue::ForgetIdle(Class& of) {
  size_t num_idle = 0;
  auto least = of.flows.end();
  for (auto it = of.flows.begin(); it != of.flows.end();) {
    if (!it->second.jobs.empty()) {
      ++it;
    } else if (it->second.tag <= of.virtual_time) {
      it = of.flows.erase(it);
    } else {
      if (least == of.flows.end() || it->second.tag < least->second.tag) {
        least = it;
      }
      ++num_idle;
      ++it;
    }
  }
  if (num_idle > kMaxIdleFlows) of.flows.erase(least);
}

bool FairQueue::Remove(JobId id) {
  const auto place = waiting_.find(id);
  if (place == waiting_.end()) return false;
  Class& of = ClassOf(place->second.priority);
  auto& jobs = of.flows.find(place->second.client)->second.jobs;
  const auto job =
      std::find_if(jobs.begin(), jobs.end(),
                   [id](const Waiting& w) { return w.ticket.id == id; });
  waiting_seconds_ -= job->ticket.seconds;
  jobs.erase(job);
  waiting_.erase(place);
  if (waiting_.empty()) waiting_seconds_ = 0;
  ForgetIdle(of);
  return true;
}

void FairQueue::SetPaused(JobId id, bool paused) {
  const auto job = running_.find(id);
  if (job == running_.end() || job->second.paused == paused) return;
  if (job->second.is_companion || job->second.batch.size > 1) return;
  const std::string& client = job->second.client;
  if (!paused && NumPausedOf(client) >= limits_.max_paused_of_client) {
    // It was held back through its own doing and has nothing to catch up on.
    for (Class& of : classes_) {
      const auto flow = of.flows.find(client);
      if (flow == of.flows.end()) continue;
      flow->second.tag = std::max(flow->second.tag, of.virtual_time);
    }
  }
  job->second.paused = paused;
  devices_[job->second.device].num_paused += paused ? 1 : -1;
}

void FairQueue::End(JobId id) {
  SetPaused(id, false);
  const auto job = running_.find(id);
  if (job == running_.end()) return;
  Device& on = devices_[job->second.device];
  on.running_bytes -= job->second.bytes;
  --on.num_running;
  on.running_seconds =
      on.num_running == 0 ? 0 : on.running_seconds - job->second.seconds;
  if (job->second.is_companion) --on.num_companions;
  running_.erase(job);
  // Nobody competes any more: what was used before does not matter.
  if (running_.empty() && waiting_.empty()) {
    for (Class& of : classes_) of = Class();
  }
}

std::map<std::string, double> FairQueue::Starved() const {
  std::map<std::string, double> starved;
  int64_t num_free = 0;
  for (int64_t device = 0; device < limits_.num_devices; ++device) {
    num_free += NumFreeWorkers(device);
  }
  if (num_free == 0) return starved;
  for (const Class& of : classes_) {
    for (const auto& [client, flow] : of.flows) {
      for (const Waiting& waiting : flow.jobs) {
        const Ticket& job = waiting.ticket;
        if (job.devices == nullptr || NumFreeWorkersFor(job) > 0) continue;
        starved[job.model] += job.seconds;
      }
    }
  }
  for (const auto& [id, job] : running_) {
    if (!job.devices || devices_[job.device].num_running < 2) continue;
    for (int64_t other = 0; other < limits_.num_devices; ++other) {
      if (devices_[other].num_running > 0 || job.devices->Has(other)) continue;
      starved[job.model] += job.seconds;
      break;
    }
  }
  return starved;
}

}  // namespace limpid
