// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/flights.h"

#include <utility>

namespace limpid {

Flights::Seat Flights::Board(const std::string& key, absl::Time deadline,
                             Answer answer) {
  MutexLock lock(mutex_);
  Seat seat;
  seat.id = ++last_seat_;
  std::shared_ptr<Flight>& flight = flights_[key];
  seat.first = flight == nullptr || !flight->cancel.Check().ok();
  if (seat.first) {
    flight = std::make_shared<Flight>(key, deadline);
    flight->first_seat = seat.id;
  } else {
    flight->cancel.ExtendTo(deadline);
  }
  flight->waiting.emplace(seat.id, std::move(answer));
  seat.flight = flight;
  return seat;
}

void Flights::Forget(const std::shared_ptr<Flight>& flight) {
  const auto it = flights_.find(flight->key);
  // Another one may have begun under this key.
  if (it != flights_.end() && it->second == flight) flights_.erase(it);
}

bool Flights::Leave(const Seat& seat) {
  {
    MutexLock lock(mutex_);
    if (seat.flight->waiting.erase(seat.id) == 0) return false;
    if (!seat.flight->waiting.empty()) return true;
    Forget(seat.flight);
  }
  // The token too: the job may not have been submitted yet.
  seat.flight->cancel.Cancel();
  pool_.Cancel(seat.flight->job);
  return true;
}

bool Flights::End(const std::shared_ptr<Flight>& flight, const Result& result) {
  std::map<uint64_t, Answer> waiting;
  {
    MutexLock lock(mutex_);
    Forget(flight);
    waiting.swap(flight->waiting);
  }
  for (const auto& [id, answer] : waiting) {
    answer(id == flight->first_seat, result);
  }
  return waiting.count(flight->first_seat) > 0;
}

}  // namespace limpid
