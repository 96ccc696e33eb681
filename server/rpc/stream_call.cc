// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/stream_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/rpc/parse.h"
#include "server/rpc/unary_call.h"

namespace limpid {
namespace {

// A shutdown sets the cancel token without telling who waits here.
constexpr absl::Duration kLookAtToken = absl::Milliseconds(50);

}  // namespace

StreamCall* StreamCall::Create(const CallServices& services, const RpcName& rpc,
                               const StreamLimits& limits,
                               grpc::CallbackServerContext& context) {
  std::shared_ptr<StreamCall> call(
      new StreamCall(services, rpc, limits, context));
  MutexLock lock(call->mutex_);
  call->self_ = call;
  return call.get();
}

absl::Status StreamCall::Write(const google::protobuf::Message& message) {
  const absl::Time begin = absl::Now();
  grpc::ByteBuffer bytes;
  LIMPID_RETURN_IF_ERROR(SerializeMessage(message, bytes));
  call_.explained.serialize += absl::Now() - begin;
  const auto size = static_cast<int64_t>(bytes.Length());
  Step step = Step::kNothing;
  const absl::Time packed = absl::Now();
  LIMPID_RETURN_IF_ERROR(WaitForRoom(size));
  {
    MutexLock lock(mutex_);
    call_.explained.send += absl::Now() - packed;
    if (broken_) return Broken();
    buffered_bytes_ += size;
    call_.explained.reply_bytes += size;
    waiting_.push_back(std::move(bytes));
    step = NextStep();
  }
  Do(step);
  return absl::OkStatus();
}

bool StreamCall::HasRoom(int64_t size) const {
  return broken_ || buffered_bytes_ == 0 ||
         buffered_bytes_ + size <= limits_.max_buffered_bytes;
}

absl::Status StreamCall::WaitForRoom(int64_t size) {
  {
    MutexLock lock(mutex_);
    if (HasRoom(size)) return absl::OkStatus();
  }
  if (on_wait_) on_wait_(true);
  absl::Status status;
  {
    MutexLock lock(mutex_);
    while (!HasRoom(size) && (status = call_.cancel().Check()).ok()) {
      lock.WaitUntil(changed_, absl::ToChronoTime(absl::Now() + kLookAtToken));
    }
  }
  if (on_wait_) on_wait_(false);
  return status;
}

void StreamCall::End(absl::Status status) {
  Step step = Step::kNothing;
  {
    MutexLock lock(mutex_);
    if (end_) return;
    if (!status.ok()) waiting_.clear();
    end_ = std::move(status);
    step = NextStep();
  }
  Do(step);
}

void StreamCall::Guard(const std::function<void()>& body) {
  try {
    body();
  } catch (...) {
    End(StatusOfException());
  }
}

StreamCall::Step StreamCall::NextStep() {
  if (writing_ || cutting_ || finished_) return Step::kNothing;
  if (!broken_ && !waiting_.empty()) {
    current_ = std::move(waiting_.front());
    waiting_.pop_front();
    writing_ = true;
    last_progress_ = absl::Now();
    if (alarm_ == nullptr) ArmStallAlarm(last_progress_ + limits_.max_stall);
    return Step::kWrite;
  }
  if (!end_) return Step::kNothing;
  finished_ = true;
  if (broken_ && (end_->ok() || stalled_)) end_ = Broken();
  return Step::kFinish;
}

void StreamCall::Do(Step step) {
  if (step == Step::kWrite) StartWrite(&current_);
  if (step == Step::kFinish) {
    absl::Status status;
    {
      MutexLock lock(mutex_);
      status = *end_;
    }
    Finish(call_.End(std::move(status)));
  }
}

absl::Status StreamCall::Broken() {
  if (stalled_) {
    return MakeError(absl::StatusCode::kAborted, "READER_STALLED",
                     absl::StrCat("the reader took nothing for ",
                                  absl::FormatDuration(limits_.max_stall)));
  }
  return MakeError(absl::StatusCode::kCancelled, "CANCELLED",
                   "the caller has gone");
}

void StreamCall::OnWriteDone(bool ok) {
  Step step = Step::kNothing;
  {
    MutexLock lock(mutex_);
    writing_ = false;
    last_progress_ = absl::Now();
    buffered_bytes_ -= static_cast<int64_t>(current_.Length());
    current_.Clear();
    if (!ok) {
      broken_ = true;
      waiting_.clear();
    }
    step = NextStep();
  }
  changed_.notify_all();
  Do(step);
}

void StreamCall::OnCancel() {
  Step step = Step::kNothing;
  {
    MutexLock lock(mutex_);
    broken_ = true;
    waiting_.clear();
    step = NextStep();
  }
  changed_.notify_all();
  Do(step);
  // gRPC keeps the call until this function has returned.
  call_.NoteClientGone();
}

void StreamCall::ArmStallAlarm(absl::Time when) {
  // An alarm that is set again within its own callback would destroy that
  // callback, so every one is new.
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(absl::ToChronoTime(when), [self = self_](bool rang) {
    if (rang) self->OnStallAlarm();
  });
}

void StreamCall::OnStallAlarm() {
  Step step = Step::kNothing;
  {
    MutexLock lock(mutex_);
    if (closed_ || finished_) return;
    const absl::Time now = absl::Now();
    const absl::Time limit =
        (writing_ ? last_progress_ : now) + limits_.max_stall;
    if (now < limit) return ArmStallAlarm(limit);
    stalled_ = broken_ = cutting_ = true;
    waiting_.clear();
  }
  call_.cancel().Cancel();
  context_.TryCancel();
  {
    MutexLock lock(mutex_);
    cutting_ = false;
    step = NextStep();
  }
  changed_.notify_all();
  Do(step);
}

void StreamCall::OnDone() {
  std::shared_ptr<StreamCall> self;
  std::unique_ptr<grpc::Alarm> alarm;
  {
    MutexLock lock(mutex_);
    closed_ = true;
    alarm = std::move(alarm_);
    self = std::move(self_);
  }
}

}  // namespace limpid
