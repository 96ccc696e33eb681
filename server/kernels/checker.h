// SPDX-License-Identifier: Apache-2.0
//
// What the Validate functions of all operations check alike.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/status.h"
#include "server/kernels/ops.h"

namespace limpid::kernels {

// Checks of one call; keeps the first that fails. A wrong call is a bug of
// ours, so one complaint is enough.
class Checker {
 public:
  explicit Checker(absl::string_view op) : op_(op) {}

  void Positive(int64_t value, absl::string_view name) {
    if (value <= 0) Fail(absl::StrCat(name, " is ", value, ", must be > 0"));
  }
  void AtMost(int64_t value, int64_t limit, absl::string_view name) {
    if (value > limit) {
      Fail(absl::StrCat(name, " is ", value, ", at most ", limit));
    }
  }
  void AtLeast(int64_t value, int64_t limit, absl::string_view name) {
    if (value < limit) {
      Fail(absl::StrCat(name, " is ", value, ", at least ", limit));
    }
  }
  void Same(int64_t value, int64_t other, absl::string_view name) {
    if (value != other) {
      Fail(absl::StrCat(name, " are ", value, " and ", other));
    }
  }
  // Empty ranges are fine: a thread's share may be nothing.
  void Range(int64_t begin, int64_t end, int64_t limit,
             absl::string_view name) {
    if (begin < 0 || end < begin || end > limit) {
      Fail(absl::StrCat(name, " are [", begin, ", ", end, "), of ", limit));
    }
  }
  void NotNull(const void* pointer, absl::string_view name) {
    if (pointer == nullptr) Fail(absl::StrCat(name, " is null"));
  }

  template <typename T>
  void Ssm(const SelectiveSsm<T>& ssm) {
    Positive(ssm.num_positions, "num_positions");
    Positive(ssm.num_channels, "num_channels");
    Positive(ssm.state_size, "state_size");
    AtMost(ssm.state_size, kMaxStateSize, "state_size");
    NotNull(ssm.delta, "delta");
    NotNull(ssm.a, "a");
    NotNull(ssm.b, "b");
    NotNull(ssm.c, "c");
    AtLeast(ssm.delta_stride, ssm.num_channels, "delta_stride");
    AtLeast(ssm.b_stride, ssm.state_size, "b_stride");
    AtLeast(ssm.c_stride, ssm.state_size, "c_stride");
  }
  void ConvWidth(int64_t width) {
    Positive(width, "convolution width");
    AtMost(width, kMaxConvWidth, "convolution width");
  }

  template <typename T>
  void Recurrence(const StateRecurrence<T>& recurrence) {
    Positive(recurrence.num_sequences, "num_sequences");
    Positive(recurrence.num_positions, "num_positions");
    Positive(recurrence.num_heads, "num_heads");
    Positive(recurrence.key_size, "key_size");
    AtMost(recurrence.key_size, kMaxStateSize, "key_size");
    NotNull(recurrence.query.data, "query");
    NotNull(recurrence.key.data, "key");
    NotNull(recurrence.decay.data, "decay");
    if ((recurrence.left.data == nullptr) !=
        (recurrence.right.data == nullptr)) {
      Fail("one of left and right without the other");
    }
  }
  template <typename T>
  void Values(const StateRecurrence<T>& recurrence, int64_t value_size,
              const HeadOperand<T>& value, int64_t head_begin,
              int64_t head_end) {
    Positive(value_size, "value_size");
    AtMost(value_size, kMaxStateSize, "value_size");
    NotNull(value.data, "value");
    Range(head_begin, head_end, recurrence.num_sequences * recurrence.num_heads,
          "heads");
  }
  // What ops that fold channels and multiply with the block's input share;
  // `value_stride` of those that may be negative is its magnitude.
  template <typename Op>
  void Fold(const Op& op, int64_t num_channels, int64_t value_stride) {
    if (op.fold == ChannelFold::kWeightedSumAbs) NotNull(op.weight, "weight");
    if (op.product != nullptr) {
      NotNull(op.value, "value");
      AtLeast(value_stride, num_channels, "value_stride");
    }
  }
  // A gradient by something that is not there.
  void Unwanted(const void* gradient, const void* operand,
                absl::string_view name) {
    if (gradient != nullptr && operand == nullptr) {
      Fail(absl::StrCat("d", name, " without ", name));
    }
  }

  absl::Status ToStatus() const { return status_; }

 private:
  void Fail(absl::string_view what) {
    if (!status_.ok()) return;
    status_ = MakeError(absl::StatusCode::kInternal, "KERNEL_ARGUMENT",
                        absl::StrCat(op_, ": ", what));
  }

  absl::string_view op_;
  absl::Status status_;
};

}  // namespace limpid::kernels
