// SPDX-License-Identifier: Apache-2.0
//
// Tensors of a reply on their way from a device to the sink. Copies from a GPU
// go through pinned memory and are handed on when they have arrived, so that
// nobody waits for the device between layers.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "server/explain/result.h"

namespace limpid {

// Used by one thread. Statuses are the sink's; after one that is not ok nothing
// is to be posted.
class Outbox {
 public:
  // `sink` outlives it.
  explicit Outbox(ResultSink& sink) : sink_(sink) {}

  // Sends `tensor` as float32, or int64 if it is integral, after all that was
  // posted before.
  absl::Status Post(std::string name, const at::Tensor& tensor,
                    bool lower_triangular = false);
  // Waits for what is still on its way.
  absl::Status Flush() { return Deliver(/*most_waiting_bytes=*/-1); }

  int64_t num_tensors() const { return num_tensors_; }
  int64_t num_non_finite() const { return num_non_finite_; }

 private:
  struct Letter {
    std::string name;
    at::Tensor tensor;  // on the CPU
    bool lower_triangular = false;
    std::optional<c10::Event> arrived;  // none: it is there
  };

  // Delivers what has arrived, and waits for more while more bytes than this
  // are waiting.
  absl::Status Deliver(int64_t most_waiting_bytes);
  absl::Status Deliver(const Letter& letter);

  ResultSink& sink_;
  std::deque<Letter> letters_;
  int64_t waiting_bytes_ = 0;
  int64_t num_tensors_ = 0;
  int64_t num_non_finite_ = 0;
};

}  // namespace limpid
