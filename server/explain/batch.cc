// SPDX-License-Identifier: Apache-2.0
#include "server/explain/batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "server/explain/reply.h"
#include "server/explain/runner.h"
#include "server/models/torch_seam.h"

namespace limpid {
namespace {

const ExplanationPlan& PlanOf(const BatchMember& member) {
  return static_cast<const ExplanationPlan&>(*member.plan);
}

bool RanOutOfMemory(const absl::Status& status) {
  return absl::IsResourceExhausted(status) &&
         GetErrorDetails(status).reason == kOutOfMemory;
}

// One attempt to run members together. Whoever has ended may have given its
// plan and its lease back, so nothing of it is looked at any more; and the last
// one ends when the network is not used any more.
class Attempt {
 public:
  Attempt(const ModelCopy& copy, const std::vector<BatchMember>& members);

  // Calls `end` once for every member, as soon as it has ended.
  using End = std::function<void(const BatchMember& member,
                                 const absl::Status& status)>;
  void Run(const End& end);

 private:
  struct Seat {
    const BatchMember* member;
    std::unique_ptr<Runner> runner;
    bool ended = false;
  };

  absl::Status RunTogether();
  // Inputs as one, packed as `packing` says.
  NetworkInput Input(const Packing& packing) const;
  // Does a part of a member's own work. What goes wrong ends that member, or is
  // returned if nobody else is left.
  absl::Status Step(Seat& seat, const std::function<absl::Status()>& work);
  void EndSeat(Seat& seat, const absl::Status& status);

  const ModelCopy& copy_;
  const Network& network_;
  std::vector<Seat> seats_;
  int64_t num_left_ = 0;
  const End* end_ = nullptr;
};

Attempt::Attempt(const ModelCopy& copy, const std::vector<BatchMember>& members)
    : copy_(copy),
      network_(PlanOf(members.front()).NetworkOf(copy)),
      num_left_(std::ssize(members)) {
  for (const BatchMember& member : members) {
    seats_.push_back({&member, nullptr});
  }
}

void Attempt::EndSeat(Seat& seat, const absl::Status& status) {
  if (seat.ended) return;
  seat.ended = true;
  --num_left_;
  // What it holds goes before the next one goes on.
  seat.runner.reset();
  (*end_)(*seat.member, status);
}

absl::Status Attempt::Step(Seat& seat,
                           const std::function<absl::Status()>& work) {
  if (seat.ended) return absl::OkStatus();
  absl::Status status = seat.member->cancel.Check();
  if (status.ok()) status = CatchTorch(work);
  if (status.ok() || num_left_ == 1) return status;
  EndSeat(seat, status);
  return absl::OkStatus();
}

void Attempt::Run(const End& end) {
  end_ = &end;
  const absl::Status status = CatchTorch([&] { return RunTogether(); });
  for (Seat& seat : seats_) EndSeat(seat, status);
}

absl::Status Attempt::RunTogether() {
  for (Seat& seat : seats_) {
    LIMPID_RETURN_IF_ERROR(Step(seat, [&] {
      seat.runner = std::make_unique<Runner>(
          PlanOf(*seat.member), copy_, *seat.member->sink, seat.member->cancel);
      return seat.runner->Begin();
    }));
  }
  std::erase_if(seats_, [](const Seat& seat) { return seat.ended; });
  // Equally long ones next to each other, which can then be folded together,
  // and short ones first, since members end one after the other.
  std::stable_sort(
      seats_.begin(), seats_.end(), [](const Seat& a, const Seat& b) {
        return PlanOf(*a.member).length() < PlanOf(*b.member).length();
      });
  Sequences sequences;
  sequences.alike = true;
  std::vector<int64_t> lengths;
  for (const Seat& seat : seats_) {
    const ExplanationPlan& plan = PlanOf(*seat.member);
    lengths.push_back(plan.length());
    sequences.positions.push_back(plan.readouts());
    sequences.alike &= plan.VisitsAs(PlanOf(*seats_.front().member));
  }
  sequences.packing = Packing(lengths);
  const NetworkInput input = Input(sequences.packing);
  const at::Tensor embeddings = network_.Embed(input);
  for (size_t i = 0; i < seats_.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    LIMPID_RETURN_IF_ERROR(Step(seats_[i], [&] {
      seats_[i].runner->Enter(sequences.packing.Sequences(embeddings, index),
                              input.pixels.defined()
                                  ? input.pixels.narrow(0, index, 1)
                                  : at::Tensor());
      return absl::OkStatus();
    }));
  }
  // Members look at their own tokens; the pass ends when all have left.
  LIMPID_ASSIGN_OR_RETURN(const std::vector<at::Tensor> scores,
                          network_.ForwardSequences(
                              embeddings, sequences,
                              [&](int64_t layer, int64_t sequence,
                                  const BlockAttention& attention) {
                                Seat& seat = seats_[sequence];
                                return Step(seat, [&] {
                                  return seat.runner->OnLayer(layer, attention);
                                });
                              },
                              CancelToken()));
  for (size_t i = 0; i < seats_.size(); ++i) {
    LIMPID_RETURN_IF_ERROR(
        Step(seats_[i], [&] { return seats_[i].runner->Finish(scores[i]); }));
    EndSeat(seats_[i], absl::OkStatus());
  }
  return absl::OkStatus();
}

NetworkInput Attempt::Input(const Packing& packing) const {
  NetworkInput input;
  const auto count = static_cast<int64_t>(seats_.size());
  if (!PlanOf(*seats_.front().member).pixels().empty()) {
    const ModelInfo& info = network_.info();
    input.pixels = at::empty({count, 3, info.image_height, info.image_width});
    float* place = input.pixels.mutable_data_ptr<float>();
    for (const Seat& seat : seats_) {
      const std::vector<float>& pixels = PlanOf(*seat.member).pixels();
      place = std::copy(pixels.begin(), pixels.end(), place);
    }
    return input;
  }
  std::vector<at::Tensor> ids;
  for (const Seat& seat : seats_) ids.push_back(TokenIds(PlanOf(*seat.member)));
  input.token_ids =
      at::cat(ids).view({packing.packed() ? int64_t{1} : count, -1});
  return input;
}

}  // namespace

void RunMembers(const ModelCopy& copy, const std::vector<BatchMember>& members,
                const EndObserver& on_end) {
  if (members.empty()) return;
  std::vector<BatchMember> again;
  Attempt(copy, members)
      .Run([&](const BatchMember& member, const absl::Status& status) {
        if (members.size() > 1 && RanOutOfMemory(status) &&
            member.sink->Restart()) {
          again.push_back(member);
          return;
        }
        member.done(on_end(PlanOf(member), status));
      });
  // Everything that the attempt held is free by now.
  const auto middle = again.begin() + (std::ssize(again) + 1) / 2;
  RunMembers(copy, {again.begin(), middle}, on_end);
  RunMembers(copy, {middle, again.end()}, on_end);
}

}  // namespace limpid
