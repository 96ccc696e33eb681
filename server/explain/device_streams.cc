// SPDX-License-Identifier: Apache-2.0
#include "server/explain/device_streams.h"

#ifdef LIMPID_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace limpid {

#ifdef LIMPID_WITH_CUDA

DeviceStreams::Lent::Lent(DeviceStreams& from) : from_(from) {
  if (!from.device_.is_cuda()) return;
  std::lock_guard<std::mutex> lock(from.mutex_);
  if (from.idle_.empty()) {
    guard_.emplace(c10::cuda::getStreamFromPool(/*isHighPriority=*/false,
                                                from.device_.index()));
  } else {
    guard_.emplace(from.idle_.back());
    from.idle_.pop_back();
  }
}

DeviceStreams::Lent::~Lent() {
  if (!guard_) return;
  Wait();
  std::lock_guard<std::mutex> lock(from_.mutex_);
  from_.idle_.push_back(guard_->current_stream());
}

void DeviceStreams::Lent::Wait() const {
  if (guard_) (void)cudaStreamSynchronize(guard_->current_stream().stream());
}

void DeviceStreams::WaitForCurrent() const {
  if (!device_.is_cuda()) return;
  (void)cudaStreamSynchronize(
      c10::cuda::getCurrentCUDAStream(device_.index()).stream());
}

#else

DeviceStreams::Lent::Lent(DeviceStreams& from) : from_(from) {}
DeviceStreams::Lent::~Lent() = default;
void DeviceStreams::Lent::Wait() const {}
void DeviceStreams::WaitForCurrent() const {}

#endif

}  // namespace limpid
