// SPDX-License-Identifier: Apache-2.0
//
// A server stream that one worker writes and gRPC sends, with a bounded buffer
// between them.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/alarm.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "server/base/mutex.h"
#include "server/rpc/call.h"

namespace limpid {

struct StreamLimits {
  // Messages that wait to be sent; one that is larger by itself passes alone.
  // With the one that is being packed and gRPC's own buffer it stays below
  // 4 MiB.
  int64_t max_buffered_bytes = 3 << 20;
  // How long a reader may take no byte before it is cut.
  absl::Duration max_stall = absl::Seconds(30);
};

// Belongs to gRPC and to itself until the call is over. End must be called
// exactly once; after that the object may be gone.
class StreamCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  static StreamCall* Create(const CallServices& services, const RpcName& rpc,
                            const StreamLimits& limits,
                            grpc::CallbackServerContext& context);
  ~StreamCall() override = default;

  Call& call() { return call_; }
  // Told with true before Write waits for the reader and with false after that,
  // on the thread that writes. Set before the first Write.
  void set_on_wait(std::function<void(bool waits)> on_wait) {
    on_wait_ = std::move(on_wait);
  }
  // Hands a message over; blocks while the buffer is full. CANCELLED, ABORTED
  // (reason READER_STALLED) or DEADLINE_EXCEEDED when there is no use in going
  // on. For one thread at a time that is not gRPC's.
  absl::Status Write(const google::protobuf::Message& message);

  // Ends the stream, with an error at once, else after what is buffered.
  void End(absl::Status status);

  // Runs a part of the handler; what it throws becomes INTERNAL.
  void Guard(const std::function<void()>& body);

 private:
  // What is to be done after the lock is given back: reactions may come while
  // the operation is being started.
  enum class Step { kNothing, kWrite, kFinish };

  StreamCall(const CallServices& services, const RpcName& rpc,
             const StreamLimits& limits, grpc::CallbackServerContext& context)
      : call_(services, rpc, context), limits_(limits), context_(context) {}

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  bool HasRoom(int64_t size) const LIMPID_REQUIRES(mutex_);
  // Waits until a message has room, or there is no use in waiting.
  absl::Status WaitForRoom(int64_t size);
  Step NextStep() LIMPID_REQUIRES(mutex_);
  void Do(Step step);
  absl::Status Broken() LIMPID_REQUIRES(mutex_);
  void ArmStallAlarm(absl::Time when) LIMPID_REQUIRES(mutex_);
  void OnStallAlarm();

  Call call_;
  const StreamLimits limits_;
  grpc::CallbackServerContext& context_;
  std::function<void(bool waits)> on_wait_;

  Mutex mutex_;
  std::condition_variable changed_;
  std::deque<grpc::ByteBuffer> waiting_ LIMPID_GUARDED_BY(mutex_);
  // Being sent; gRPC reads it until OnWriteDone.
  grpc::ByteBuffer current_;
  int64_t buffered_bytes_ LIMPID_GUARDED_BY(mutex_) = 0;
  absl::Time last_progress_ LIMPID_GUARDED_BY(mutex_);
  bool writing_ LIMPID_GUARDED_BY(mutex_) = false;
  bool broken_ LIMPID_GUARDED_BY(mutex_) = false;   // nobody reads any more
  bool stalled_ LIMPID_GUARDED_BY(mutex_) = false;  // and that is why
  // The alarm is about to use the context: no Finish meanwhile.
  bool cutting_ LIMPID_GUARDED_BY(mutex_) = false;
  bool finished_ LIMPID_GUARDED_BY(mutex_) = false;
  bool closed_ LIMPID_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ LIMPID_GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Alarm> alarm_ LIMPID_GUARDED_BY(mutex_);
  // Given up in OnDone; an alarm that is about to ring holds another.
  std::shared_ptr<StreamCall> self_ LIMPID_GUARDED_BY(mutex_);
};

}  // namespace limpid
