// SPDX-License-Identifier: Apache-2.0
#include "server/kernels/ops.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/status.h"

namespace limpid::kernels {
namespace {

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

}  // namespace

template <typename T>
absl::Status Validate(const SelectiveScan<T>& op) {
  Checker check("SelectiveScan");
  check.Ssm(op.ssm);
  check.Range(op.channel_begin, op.channel_end, op.ssm.num_channels,
              "channels");
  check.NotNull(op.u, "u");
  check.NotNull(op.y, "y");
  check.AtLeast(op.u_stride, op.ssm.num_channels, "u_stride");
  check.AtLeast(op.y_stride, op.ssm.num_channels, "y_stride");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const SelectiveScanBackward<T>& op) {
  Checker check("SelectiveScanBackward");
  check.Ssm(op.ssm);
  check.Range(op.channel_begin, op.channel_end, op.ssm.num_channels,
              "channels");
  check.NotNull(op.u, "u");
  check.NotNull(op.dy, "dy");
  check.AtLeast(op.u_stride, op.ssm.num_channels, "u_stride");
  check.AtLeast(op.dy_stride, op.ssm.num_channels, "dy_stride");
  check.NotNull(op.du, "du");
  check.NotNull(op.ddelta, "ddelta");
  check.NotNull(op.db, "db");
  check.NotNull(op.dc, "dc");
  check.NotNull(op.scratch, "scratch");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const CausalConv1d<T>& op) {
  Checker check("CausalConv1d");
  check.Positive(op.num_positions, "num_positions");
  check.Positive(op.num_channels, "num_channels");
  check.ConvWidth(op.width);
  check.NotNull(op.weight, "weight");
  check.NotNull(op.x, "x");
  check.NotNull(op.out, "out");
  check.AtLeast(op.x_stride, op.num_channels, "x_stride");
  check.AtLeast(op.out_stride, op.num_channels, "out_stride");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const SsmAttention<T>& op) {
  Checker check("SsmAttention");
  check.Ssm(op.ssm);
  check.Range(op.channel_begin, op.channel_end, op.ssm.num_channels,
              "channels");
  check.Range(op.row_begin, op.row_end, op.ssm.num_positions, "rows");
  if (op.source_scale != nullptr) {
    check.AtLeast(op.source_stride, op.ssm.num_channels, "source_stride");
  }
  if (op.row_scale != nullptr) {
    check.AtLeast(op.row_stride, op.ssm.num_channels, "row_stride");
  }
  if (op.conv_weight != nullptr) check.ConvWidth(op.conv_width);
  check.NotNull(op.out, "out");
  return check.ToStatus();
}

template <typename T>
absl::Status Validate(const FoldChannels<T>& op) {
  Checker check("FoldChannels");
  check.Range(0, op.num_channels, op.num_channels, "channels");
  check.Range(0, op.num_entries, op.num_entries, "entries");
  check.NotNull(op.slab, "slab");
  check.NotNull(op.accumulator, "accumulator");
  if (op.fold == ChannelFold::kWeightedSumAbs) {
    check.NotNull(op.weight, "weight");
  }
  return check.ToStatus();
}

template absl::Status Validate(const SelectiveScan<float>&);
template absl::Status Validate(const SelectiveScan<double>&);
template absl::Status Validate(const SelectiveScanBackward<float>&);
template absl::Status Validate(const SelectiveScanBackward<double>&);
template absl::Status Validate(const CausalConv1d<float>&);
template absl::Status Validate(const CausalConv1d<double>&);
template absl::Status Validate(const SsmAttention<float>&);
template absl::Status Validate(const SsmAttention<double>&);
template absl::Status Validate(const FoldChannels<float>&);
template absl::Status Validate(const FoldChannels<double>&);

}  // namespace limpid::kernels
