// SPDX-License-Identifier: Apache-2.0
#include "server/models/side_by_side.h"

#ifdef LIMPID_WITH_CUDA
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <mutex>
#include <utility>
#endif

namespace limpid {

#ifdef LIMPID_WITH_CUDA

namespace {

using c10::cuda::CUDAStream;

// The stream beside `current`, always the same. None but these are taken from
// Torch's pool of urgent streams, which hands out the first one again after 32:
// from then on there is none beside a new stream but itself, since two that
// shared one would take each other's memory.
CUDAStream StreamBeside(const CUDAStream& current) {
  constexpr size_t kStreamsOfPool = 32;
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, std::map<c10::StreamId, CUDAStream>> all;
  std::lock_guard<std::mutex> lock(mutex);
  auto& beside = all[current.device_index()];
  const auto known = beside.find(current.id());
  if (known != beside.end()) return known->second;
  if (beside.size() >= kStreamsOfPool) return current;
  const CUDAStream taken = c10::cuda::getStreamFromPool(
      /*isHighPriority=*/true, current.device_index());
  beside.emplace(current.id(), taken);
  return taken;
}

void Follow(const c10::Stream& stream, const c10::Stream& before) {
  c10::Event done(c10::DeviceType::CUDA);
  done.record(before);
  done.block(stream);
}

}  // namespace

void SideBySide(const at::Tensor& where, const std::function<void()>& aside,
                const std::function<void()>& here) {
  if (!where.is_cuda()) {
    aside();
    here();
    return;
  }
  const CUDAStream current =
      c10::cuda::getCurrentCUDAStream(where.device().index());
  const CUDAStream beside = StreamBeside(current);
  Follow(beside, current);
  try {
    {
      const c10::StreamGuard guard(beside);
      aside();
    }
    here();
  } catch (...) {
    // What was launched may still use what is freed now.
    Follow(current, beside);
    throw;
  }
  Follow(current, beside);
}

#else

void SideBySide(const at::Tensor&, const std::function<void()>& aside,
                const std::function<void()>& here) {
  aside();
  here();
}

#endif

}  // namespace limpid
