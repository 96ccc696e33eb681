// SPDX-License-Identifier: Apache-2.0
#include "server/explain/outbox.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

namespace limpid {
namespace {

// Of pinned memory.
constexpr int64_t kMostWaitingBytes = int64_t{64} << 20;

}  // namespace

absl::Status Outbox::Post(std::string name, const at::Tensor& tensor,
                          bool lower_triangular) {
  const at::ScalarType type =
      tensor.scalar_type() == at::kLong ? at::kLong : at::kFloat;
  Letter letter;
  letter.name = std::move(name);
  letter.lower_triangular = lower_triangular;
  if (tensor.is_cpu()) {
    letter.tensor = tensor.to(type).contiguous();
  } else {
    // Packed on the device: copies in one piece are the ones that nobody waits
    // for.
    letter.tensor =
        tensor.to(type).contiguous().to(at::kCPU, /*non_blocking=*/true);
    const c10::impl::VirtualGuardImpl device(tensor.device().type());
    letter.arrived.emplace(tensor.device().type());
    letter.arrived->record(device.getStream(tensor.device()));
  }
  waiting_bytes_ += static_cast<int64_t>(letter.tensor.nbytes());
  letters_.push_back(std::move(letter));
  return Deliver(kMostWaitingBytes);
}

absl::Status Outbox::Deliver(int64_t most_waiting_bytes) {
  while (!letters_.empty()) {
    const Letter& letter = letters_.front();
    if (letter.arrived && !letter.arrived->query()) {
      if (waiting_bytes_ <= most_waiting_bytes) break;
      letter.arrived->synchronize();
    }
    LIMPID_RETURN_IF_ERROR(Deliver(letter));
    waiting_bytes_ -= static_cast<int64_t>(letter.tensor.nbytes());
    letters_.pop_front();
  }
  return absl::OkStatus();
}

absl::Status Outbox::Deliver(const Letter& letter) {
  const at::Tensor& tensor = letter.tensor;
  const bool integral = tensor.scalar_type() == at::kLong;
  NamedTensor out;
  out.name = letter.name;
  out.dtype = integral ? DType::kInt64 : DType::kFloat32;
  out.shape = tensor.sizes().vec();
  out.lower_triangular = letter.lower_triangular;
  out.bytes.assign(static_cast<const char*>(tensor.const_data_ptr()),
                   tensor.nbytes());
  ++num_tensors_;
  if (!integral) {
    num_non_finite_ +=
        tensor.numel() - tensor.isfinite().sum().item().toLong();
  }
  return sink_.OnTensor(std::move(out));
}

}  // namespace limpid
