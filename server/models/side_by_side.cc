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

// The stream of a span beside `current`, always the same. None but these are
// taken from Torch's pool of urgent streams, which hands out the first one
// again after 32: from then on there is none beside a new stream but itself,
// since two that shared one would take each other's memory.
CUDAStream StreamBeside(const CUDAStream& current, Aside::Span span) {
  constexpr size_t kStreamsOfPool = 32;
  static std::mutex mutex;
  using Place = std::pair<c10::StreamId, Aside::Span>;
  static std::map<c10::DeviceIndex, std::map<Place, CUDAStream>> all;
  std::lock_guard<std::mutex> lock(mutex);
  auto& beside = all[current.device_index()];
  const auto known = beside.find({current.id(), span});
  if (known != beside.end()) return known->second;
  if (beside.size() >= kStreamsOfPool) return current;
  const CUDAStream taken = c10::cuda::getStreamFromPool(
      /*isHighPriority=*/true, current.device_index());
  beside.emplace(Place(current.id(), span), taken);
  return taken;
}

void Follow(const c10::Stream& stream, const c10::Stream& before) {
  c10::Event done(c10::DeviceType::CUDA);
  done.record(before);
  done.block(stream);
}

}  // namespace

Aside::~Aside() {
  try {
    Join();
  } catch (...) {
  }
}

void Aside::Run(const at::Tensor& where, std::shared_ptr<const void> kept,
                const std::function<void()>& work) {
  Join();
  if (!where.is_cuda()) return work();
  const CUDAStream current =
      c10::cuda::getCurrentCUDAStream(where.device().index());
  const CUDAStream beside = StreamBeside(current, span_);
  Follow(beside, current);
  // Before the work, which may throw when it has begun.
  streams_.emplace(current, beside);
  kept_ = std::move(kept);
  const c10::StreamGuard guard(beside);
  work();
}

void Aside::Join() {
  if (!streams_) return;
  const auto [current, beside] = *streams_;
  streams_.reset();
  Follow(current, beside);
  kept_.reset();
}

#else

void Aside::Run(const at::Tensor&, std::shared_ptr<const void>,
                const std::function<void()>& work) {
  work();
}

Aside::~Aside() = default;
void Aside::Join() {}

#endif

void SideBySide(const at::Tensor& where, const std::function<void()>& aside,
                const std::function<void()>& here) {
  Aside beside(Aside::Span::kPart);
  beside.Run(where, nullptr, aside);
  here();
  beside.Join();
}

}  // namespace limpid
