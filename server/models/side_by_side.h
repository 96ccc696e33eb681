// SPDX-License-Identifier: Apache-2.0
//
// Work of one thread that a GPU may do at the same time.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <functional>
#include <memory>
#include <optional>
#include <utility>

namespace limpid {

// Work that a GPU does while its thread goes on launching what comes after.
class Aside {
 public:
  // For how long: work beside a stream waits for work that went beside the same
  // stream, of the same span.
  enum class Span { kPart, kLayer };

  explicit Aside(Span span) : span_(span) {}
  // Joins. Errors of the device show when it is used next.
  ~Aside();
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;

  // Joins, then calls `work`. On a GPU, that of `where`, what it launches goes
  // to the stream of its span beside the current one, where it begins after all
  // that the current one was given before. What it reads must not be written
  // meanwhile, nor freed: `kept` lives until the next Join. Memory that `work`
  // allocates comes from a pool of that stream, which nothing but later work
  // beside the same stream takes from.
  void Run(const at::Tensor& where, std::shared_ptr<const void> kept,
           const std::function<void()>& work);
  // What the stream that was current then is given from now on follows the
  // work.
  void Join();

 private:
  const Span span_;
  // That was current, and the one beside it.
  std::optional<std::pair<c10::Stream, c10::Stream>> streams_;
  std::shared_ptr<const void> kept_;
};

// Calls `aside`, as an Aside of the span kPart runs it, then `here`, and joins:
// neither may read what the other writes.
void SideBySide(const at::Tensor& where, const std::function<void()>& aside,
                const std::function<void()>& here);

}  // namespace limpid
