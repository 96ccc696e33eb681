// SPDX-License-Identifier: Apache-2.0
//
// Streams of a GPU, one for each run at a time, so that runs overlap on the
// device. Nothing at all on the CPU.
#pragma once

#include <c10/core/Device.h>

#ifdef LIMPID_WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <mutex>
#include <optional>
#include <vector>

namespace limpid {

// Thread-safe; outlives the streams it has lent.
class DeviceStreams {
 public:
  explicit DeviceStreams(c10::Device device) : device_(device) {}
  DeviceStreams(const DeviceStreams&) = delete;
  DeviceStreams& operator=(const DeviceStreams&) = delete;

  // While it lives, what its thread computes on the device goes to a stream of
  // its own. That has come to its end when this goes, so that what the work
  // used can be freed. Of several in one thread, the last one goes first.
  class Lent {
   public:
    explicit Lent(DeviceStreams& from);
    ~Lent();
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;

    // Waits for what was sent to the stream. Errors of the device show when it
    // is used next.
    void Wait() const;

   private:
    DeviceStreams& from_;
#ifdef LIMPID_WITH_CUDA
    std::optional<c10::cuda::CUDAStreamGuard> guard_;
#endif
  };

  // Waits for everything that this thread has sent to its current stream, such
  // as the copies of a load that other streams are going to read.
  void WaitForCurrent() const;

 private:
  const c10::Device device_;
#ifdef LIMPID_WITH_CUDA
  // Torch keeps memory by stream, so few are better than many: the one that
  // was given back last goes first.
  std::mutex mutex_;
  std::vector<c10::cuda::CUDAStream> idle_;
#endif
};

}  // namespace limpid
