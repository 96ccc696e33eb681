// SPDX-License-Identifier: Apache-2.0
//
// Members of a batch that leave it, in every way there is, and the others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "tests/unit/explain/engine_testing.h"

namespace limpid {
namespace {

using testing::CollectingSink;
using testing::EngineTest;

class BatchTest : public EngineTest {
 protected:
  // A member whose input has `length` tokens.
  struct Member {
    std::shared_ptr<const Plan> plan;
    CollectingSink sink;
    CancelToken cancel;
    absl::Status status = absl::UnknownError("not told");
    int num_ends = 0;
  };
  std::unique_ptr<Member> MakeMember(int64_t length,
                                     const std::string& method = "") {
    auto member = std::make_unique<Member>();
    ExplainRequest request = request_;
    request.method = method;
    TokenInput input;
    for (int64_t i = 0; i < length; ++i) input.ids.push_back((7 * i + 3) % 37);
    request.input = input;
    auto plan = engine_->MakePlan(request, model_);
    EXPECT_TRUE(plan.ok()) << plan.status();
    member->plan = *plan;
    return member;
  }
  void Run(const std::vector<Member*>& members) {
    std::vector<BatchMember> batch;
    for (Member* member : members) {
      batch.push_back({member->plan.get(), &member->sink, member->cancel,
                       [this, member](const absl::Status& status) {
                         member->status = status;
                         ++member->num_ends;
                         // As the server does: the lease goes back.
                         member->plan.reset();
                         order_.push_back(member);
                       }});
    }
    engine_->RunBatch(batch);
    for (const Member* member : members) EXPECT_EQ(member->num_ends, 1);
  }
  // That it has what it gets alone.
  void ExpectWhole(Member& member, int64_t length,
                   const std::string& method = "") {
    EXPECT_TRUE(member.status.ok()) << member.status;
    ASSERT_TRUE(member.sink.summary.has_value());
    const auto alone = MakeMember(length, method);
    Run({alone.get()});
    for (const auto& [name, tensor] : alone->sink.tensors) {
      const auto expected = alone->sink.Floats(name);
      const auto actual = member.sink.Floats(name);
      ASSERT_EQ(actual.size(), expected.size()) << name;
      for (size_t i = 0; i < actual.size(); ++i) {
        EXPECT_NEAR(actual[i], expected[i], 1e-5) << name << " " << i;
      }
    }
  }

  std::vector<Member*> order_;
};

TEST_F(BatchTest, ShortMembersEndFirstEachWithItsOwn) {
  const auto a = MakeMember(9), b = MakeMember(13, "gradient-norm"),
             c = MakeMember(11, "attention-rollout");
  Run({a.get(), b.get(), c.get()});
  EXPECT_EQ(order_, (std::vector<Member*>{a.get(), c.get(), b.get()}));
  ExpectWhole(*a, 9);
  ExpectWhole(*b, 13, "gradient-norm");
  ExpectWhole(*c, 11, "attention-rollout");
}

TEST_F(BatchTest, WhoIsCancelledBeforeTheStartIsNotPartOfIt) {
  const auto a = MakeMember(13), b = MakeMember(5), c = MakeMember(4);
  a->cancel.Cancel();
  c->cancel = CancelToken(absl::InfinitePast());
  Run({a.get(), b.get(), c.get()});
  EXPECT_EQ(a->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(c->status.code(), absl::StatusCode::kDeadlineExceeded);
  ExpectWhole(*b, 5);
}

TEST_F(BatchTest, WhoIsCancelledMeanwhileLeavesTheOthers) {
  const auto a = MakeMember(13), b = MakeMember(5), c = MakeMember(8);
  a->sink.on_progress = [&](int64_t, int64_t) {
    b->cancel.Cancel();
    return absl::OkStatus();
  };
  Run({a.get(), b.get(), c.get()});
  EXPECT_EQ(b->status.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(b->sink.summary.has_value());
  EXPECT_EQ(order_.front(), b.get());  // told at once
  ExpectWhole(*a, 13);
  ExpectWhole(*c, 8);
}

TEST_F(BatchTest, ASinkThatFailsOrThrowsIsItsOwnMembersAffair) {
  const auto a = MakeMember(13), b = MakeMember(5), c = MakeMember(8),
             d = MakeMember(6);
  a->sink.on_progress = [](int64_t, int64_t) {
    return absl::AbortedError("the reader has gone");
  };
  c->sink.on_progress = [](int64_t, int64_t) -> absl::Status {
    throw std::runtime_error("thrown by the sink");
  };
  Run({a.get(), b.get(), c.get(), d.get()});
  EXPECT_EQ(a->status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(c->status.code(), absl::StatusCode::kInternal);
  ExpectWhole(*b, 5);
  ExpectWhole(*d, 6);
}

TEST_F(BatchTest, AllMayLeave) {
  const auto a = MakeMember(13), b = MakeMember(5);
  for (Member* member : {a.get(), b.get()}) {
    member->sink.on_progress = [](int64_t, int64_t) {
      return absl::AbortedError("the reader has gone");
    };
  }
  Run({a.get(), b.get()});
  EXPECT_EQ(a->status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(b->status.code(), absl::StatusCode::kAborted);
}

TEST_F(BatchTest, TheModelMayGoWithTheLastMember) {
  const auto a = MakeMember(13), b = MakeMember(5);
  a->cancel.Cancel();
  b->sink.on_progress = [](int64_t, int64_t) {
    return absl::AbortedError("the reader has gone");
  };
  model_.reset();
  Run({a.get(), b.get()});
  EXPECT_EQ(b->status.code(), absl::StatusCode::kAborted);
}

TEST_F(BatchTest, PlansSayWhetherTheyGain) {
  const auto group = [&](const std::string& method) {
    return MakeMember(13, method)->plan->batch_group();
  };
  EXPECT_NE(group(""), nullptr);
  EXPECT_EQ(group("input-x-gradient"), group(""));
  EXPECT_EQ(group("integrated-gradients"), nullptr);
  EXPECT_EQ(group("occlusion"), nullptr);
}

TEST_F(BatchTest, PrecisionsShareNone) {
  std::set<const void*> groups;
  for (const Precision precision :
       {Precision::kFloat32, Precision::kCheckpoint, Precision::kFast}) {
    request_.precision = precision;
    groups.insert(MakeMember(13)->plan->batch_group());
  }
  EXPECT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups.count(nullptr), 0u);
}

}  // namespace
}  // namespace limpid
