// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/unary_work.h"

#include "absl/time/clock.h"
#include "server/rpc/unary_call.h"

namespace limpid {

void UnaryWork::Run(const absl::Status& admission, int64_t device) {
  if (admission.ok()) return RunWith({}, device);
  parts_.explained.queue = absl::Now() - accepted_;
  End(admission);
}

void UnaryWork::RunWith(const std::vector<BatchWork*>& others, int64_t device) {
  std::vector<UnaryWork*> all = {this};
  for (BatchWork* other : others) all.push_back(static_cast<UnaryWork*>(other));
  absl::Status status;
  try {
    std::vector<FlowMember> members;
    for (UnaryWork* work : all) {
      work->Start();
      Parts& parts = work->parts_;
      members.push_back(
          {parts.planned, parts.request_id, parts.cancel, parts.explained,
           *parts.writer,
           [work](const absl::Status& status) { work->End(status); }});
    }
    RunExplanations(parts_.flow, members, device);
  } catch (...) {
    status = StatusOfException();
  }
  for (UnaryWork* work : all) work->End(status);
}

void UnaryWork::Start() {
  parts_.explained.queue = absl::Now() - accepted_;
  parts_.on_start();
}

void UnaryWork::End(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  parts_.planned.plan.reset();
  try {
    parts_.on_end(status, parts_.explained);
  } catch (...) {
    // The others of the batch must not suffer for it.
  }
}

}  // namespace limpid
