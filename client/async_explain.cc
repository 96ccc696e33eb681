// SPDX-License-Identifier: Apache-2.0
//
// The callback form of Explain.
#include <grpcpp/support/client_callback.h>

#include <memory>
#include <optional>
#include <utility>

#include "client/client.h"
#include "client/client_state.h"
#include "client/decode.h"

namespace limpid {
namespace {

using Done = std::function<void(absl::StatusOr<Explanation>)>;

// One explanation with all its tries. Each step holds it by a shared pointer,
// and only one step runs at a time.
class AsyncExplain : public std::enable_shared_from_this<AsyncExplain> {
 public:
  AsyncExplain(ClientState& state, v1::ExplainRequest request, Done done)
      : state_(state),
        request_(std::move(request)),
        done_(std::move(done)),
        deadline_(state.Deadline()),
        request_id_(state.NewRequestId(random_)) {}

  void Try() {
    ++attempts_;
    call_.emplace(state_, deadline_, request_id_);
    if (streamed_) {
      new Reader(shared_from_this());
      return;
    }
    response_.Clear();
    state_.explanations->async()->Explain(
        &call_->context(), &request_, &response_,
        [self = shared_from_this()](const grpc::Status& status) {
          self->OnResponse(status);
        });
  }

 private:
  // The streamed call, which deletes itself when gRPC is done with it.
  class Reader : public grpc::ClientReadReactor<v1::StreamExplainResponse> {
   public:
    explicit Reader(std::shared_ptr<AsyncExplain> owner)
        : owner_(std::move(owner)), assembler_(observer_) {
      owner_->state_.explanations->async()->StreamExplain(
          &owner_->call_->context(), &owner_->request_, this);
      StartRead(&part_);
      StartCall();
    }

    void OnReadDone(bool ok) override {
      if (!ok) return;
      heard_ = true;
      damage_ = assembler_.Add(std::move(part_));
      if (damage_.ok()) {
        part_.Clear();
        StartRead(&part_);
      } else {
        owner_->call_->context().TryCancel();
      }
    }

    void OnDone(const grpc::Status& status) override {
      const std::unique_ptr<Reader> self(this);
      // Damage goes before the CANCELLED that ending the stream made of it.
      if (!damage_.ok()) {
        owner_->Finish(damage_);
      } else if (status.ok()) {
        owner_->Finish(assembler_.Finish());
      } else {
        owner_->OnFailure(status, /*repeatable=*/!heard_);
      }
    }

   private:
    const std::shared_ptr<AsyncExplain> owner_;
    const StreamObserver observer_;
    StreamAssembler assembler_;
    v1::StreamExplainResponse part_;
    absl::Status damage_;
    bool heard_ = false;
  };

  void OnResponse(const grpc::Status& status) {
    if (status.ok()) {
      Finish(DecodeResponse(std::move(response_)));
      return;
    }
    if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION &&
        GetErrorReport(FromGrpcStatus(status, "")).reason ==
            "REPLY_TOO_LARGE") {
      streamed_ = true;
      attempts_ = 0;
      Try();
      return;
    }
    OnFailure(status, /*repeatable=*/true);
  }

  void OnFailure(const grpc::Status& status, bool repeatable) {
    const std::string named = call_->ServerRequestId();
    const absl::Status failure =
        FromGrpcStatus(status, named.empty() ? request_id_ : named);
    std::optional<absl::Duration> delay;
    if (repeatable) {
      delay =
          NextDelay(state_.options.retry, attempts_, failure,
                    deadline_ - absl::Now(), absl::Uniform(random_, 0.0, 1.0));
    }
    if (delay) {
      Wait(*delay);
    } else {
      Finish(failure);
    }
  }

  void Wait(absl::Duration delay) {
    alarm_.emplace();
    {
      const std::lock_guard<std::mutex> lock(state_.mutex);
      if (!state_.cancelled) {
        // Rings in another thread, never in this call.
        state_.alarms.insert(&*alarm_);
        alarm_->Set(absl::ToChronoTime(absl::Now() + delay),
                    [self = shared_from_this()](bool in_time) {
                      self->OnAlarm(in_time);
                    });
        return;
      }
    }
    FinishCancelled();
  }

  void OnAlarm(bool in_time) {
    {
      const std::lock_guard<std::mutex> lock(state_.mutex);
      state_.alarms.erase(&*alarm_);
    }
    in_time ? Try() : FinishCancelled();
  }

  void FinishCancelled() {
    Finish(ClientError(absl::StatusCode::kCancelled, "CANCELLED",
                       "cancelled by the caller"));
  }

  void Finish(absl::StatusOr<Explanation> result) {
    call_.reset();
    done_(std::move(result));
    // The client may be gone as soon as the lock is.
    const std::lock_guard<std::mutex> lock(state_.mutex);
    --state_.num_async;
    state_.wake.notify_all();
  }

  ClientState& state_;
  const v1::ExplainRequest request_;
  const Done done_;
  const absl::Time deadline_;
  absl::BitGen random_;
  const std::string request_id_;
  std::optional<ClientState::Call> call_;
  std::optional<grpc::Alarm> alarm_;
  v1::ExplainResponse response_;
  bool streamed_ = false;
  int attempts_ = 0;
};

}  // namespace

void Client::ExplainAsync(v1::ExplainRequest request, Done done) {
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    ++state_->num_async;
  }
  std::make_shared<AsyncExplain>(*state_, std::move(request), std::move(done))
      ->Try();
}

}  // namespace limpid
