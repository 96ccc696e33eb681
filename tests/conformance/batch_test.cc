// SPDX-License-Identifier: Apache-2.0
//
// Every architecture: requests of different lengths, positions, targets, forms
// and methods get from one batch what each gets by itself, and from a network
// that is split over devices what they get from one. On GPUs, too, where there
// are any.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "server/attribution/method_spec.h"
#include "server/explain/batch.h"
#include "server/explain/plan.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/random_network.h"

namespace limpid {
namespace {

using testing::CollectingSink;
using testing::TinyCase;

// Relative L2. A GPU multiplies matrices of other sizes in another order, which
// methods that compare norms (ALTI) make an order of magnitude of.
constexpr double kTolerance = 1e-5, kGpuTolerance = 2e-5;

// |a - b| / |b|; infinite if they differ in shape.
double Distance(const NamedTensor& a, const NamedTensor& b) {
  if (a.shape != b.shape || a.dtype != b.dtype) return INFINITY;
  if (a.dtype != DType::kFloat32) return a.bytes == b.bytes ? 0 : INFINITY;
  const auto* x = reinterpret_cast<const float*>(a.bytes.data());
  const auto* y = reinterpret_cast<const float*>(b.bytes.data());
  double error = 0, norm = 0;
  for (size_t i = 0; i < a.bytes.size() / sizeof(float); ++i) {
    error += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    norm += double{y[i]} * y[i];
  }
  return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

class BatchConformanceTest : public ::testing::TestWithParam<TinyCase> {
 protected:
  static ModelCopy MakeCopy(const BuildOptions& options) {
    ModelCopy copy;
    copy.network = testing::MakeRandomNetwork(GetParam(), options, 11);
    EXPECT_NE(copy.network, nullptr);
    return copy;
  }
  void Open(at::Device device) {
    const ModelCopy copy = MakeCopy({device});
    ModelInfo info = copy.network->info();
    info.name = "tiny";
    model_ = std::make_shared<Servable>(info, copy, nullptr, std::nullopt);
    info_ = model_->info();
    tolerance_ = device.is_cpu() ? kTolerance : kGpuTolerance;
  }

  bool Has(AttentionForm form) const {
    return std::find(info_.forms.begin(), info_.forms.end(), form) !=
           info_.forms.end();
  }

  Input RandomInput(int64_t length) {
    if (info_.modality == Modality::kImage) {
      PixelInput input;
      input.shape = {3, info_.image_height, info_.image_width};
      input.values.resize(3 * info_.image_height * info_.image_width);
      std::normal_distribution<float> normal;
      for (float& value : input.values) value = normal(random_);
      return input;
    }
    TokenInput input;
    for (int64_t i = 0; i < length; ++i) {
      input.ids.push_back(Below(info_.vocabulary_size));
    }
    return input;
  }
  int64_t Below(int64_t limit) {
    return std::uniform_int_distribution<int64_t>(0, limit - 1)(random_);
  }

  // One for every method, each with something else. The lengths are those
  // given, again and again.
  std::vector<ExplainRequest> Requests(const std::vector<int64_t>& lengths) {
    const bool picture = info_.modality == Modality::kImage;
    std::vector<ExplainRequest> requests;
    for (const MethodSpec& spec : ListedMethods()) {
      const auto index = static_cast<int64_t>(requests.size());
      const int64_t length = picture ? info_.grid_rows * info_.grid_columns + 1
                                     : lengths[index % std::ssize(lengths)];
      ExplainRequest request;
      request.method = spec.name;
      request.input = RandomInput(length);
      request.points.clear();
      for (int64_t i = 0; i <= index % 2; ++i) {
        Point point;
        point.position = {Position::Kind::kIndex, Below(length)};
        if (index % 3 == 1) {
          point.target = {picture ? Target::Kind::kClass : Target::Kind::kToken,
                          Below(info_.vocabulary_size)};
        } else if (index % 3 == 2) {
          point.target = {Target::Kind::kContrast, 0, 1};
        }
        request.points.push_back(point);
      }
      AttentionRequest& attention = request.attention;
      attention.kind = index % 3 == 0   ? AttentionKind::kRow
                       : index % 3 == 1 ? AttentionKind::kMatrix
                                        : AttentionKind::kNone;
      if (index % 4 == 1) attention.reduction = ChannelReduction::kAll;
      if (index % 5 == 2 && Has(AttentionForm::kState)) {
        attention.form = AttentionForm::kState;
      }
      if (index % 5 == 3) attention.form = AttentionForm::kNoGate;
      if (!Has(attention.form)) attention.form = AttentionForm::kFull;
      request.logits = index % 2 == 0;
      request.debug_tensors = index % 2 == 1;
      if (spec.name == "integrated-gradients") request.options.steps = 8;
      if (index % 4 == 0) request.faithfulness.emplace();
      requests.push_back(std::move(request));
    }
    return requests;
  }

  // Some that differ in their input alone, so that what one folds serves all if
  // they are equally long.
  std::vector<ExplainRequest> AlikeRequests(
      const std::vector<int64_t>& lengths) {
    const bool picture = info_.modality == Modality::kImage;
    std::vector<ExplainRequest> requests;
    for (const int64_t length : lengths) {
      ExplainRequest& request = requests.emplace_back();
      request.method = "raw-attention";
      request.input = RandomInput(
          picture ? info_.grid_rows * info_.grid_columns + 1 : length);
      request.attention.kind = AttentionKind::kMatrix;
      request.attention.reduction = ChannelReduction::kL2;
    }
    return requests;
  }

  // Runs all requests together and each by itself.
  void CompareWithAlone(const std::vector<ExplainRequest>& requests);
  // That, with requests of all kinds and lengths.
  void CompareBatches();
  // Runs each on `device`, and with every other layer on `other`.
  void CompareWithSplit(at::Device device, at::Device other);

  std::shared_ptr<const Plan> MakePlan(const ExplainRequest& request) const {
    auto plan = ExplanationPlan::Make(request, model_, EngineOptions(), 1e9);
    EXPECT_TRUE(plan.ok()) << request.method << ": " << plan.status();
    return plan.ok() ? *plan : nullptr;
  }

  std::shared_ptr<const Servable> model_;
  ModelInfo info_;
  double tolerance_ = kTolerance;
  std::mt19937_64 random_{5};
};

// Runs plans together and expects that all end well.
std::vector<CollectingSink> RunTogether(
    const ModelCopy& copy,
    const std::vector<std::shared_ptr<const Plan>>& plans) {
  std::vector<CollectingSink> sinks(plans.size());
  std::vector<BatchMember> members;
  for (size_t i = 0; i < plans.size(); ++i) {
    members.push_back({plans[i].get(), &sinks[i], CancelToken(),
                       [plan = plans[i].get()](const absl::Status& status) {
                         EXPECT_TRUE(status.ok())
                             << plan->method() << ": " << status;
                       }});
  }
  RunMembers(copy, members,
             [](const ExplanationPlan&, const absl::Status& status) {
               return status;
             });
  return sinks;
}

void ExpectSame(const CollectingSink& together, const CollectingSink& alone,
                double tolerance) {
  EXPECT_EQ(together.header->num_positions, alone.header->num_positions);
  ASSERT_EQ(together.tensors.size(), alone.tensors.size());
  for (const auto& [name, tensor] : alone.tensors) {
    const auto found = together.tensors.find(name);
    ASSERT_NE(found, together.tensors.end()) << name;
    EXPECT_LE(Distance(found->second, tensor), tolerance) << name;
  }
  const ResultSummary& a = *together.summary;
  const ResultSummary& b = *alone.summary;
  ASSERT_EQ(a.points.size(), b.points.size());
  for (size_t i = 0; i < a.points.size(); ++i) {
    EXPECT_EQ(a.points[i].target.id, b.points[i].target.id);
    EXPECT_EQ(a.points[i].predictions.size(), b.points[i].predictions.size());
  }
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t i = 0; i < a.layers.size(); ++i) {
    EXPECT_EQ(a.layers[i].layer, b.layers[i].layer);
    EXPECT_LE(a.layers[i].reconstruction_error, 1e-4);
  }
  EXPECT_EQ(a.num_tensors, b.num_tensors);
  EXPECT_EQ(a.num_non_finite, 0);
}

void BatchConformanceTest::CompareWithAlone(
    const std::vector<ExplainRequest>& requests) {
  std::vector<std::shared_ptr<const Plan>> plans;
  for (const ExplainRequest& request : requests) {
    plans.push_back(MakePlan(request));
    ASSERT_NE(plans.back(), nullptr);
  }
  const ModelCopy& copy = model_->FirstCopy();
  const std::vector<CollectingSink> together = RunTogether(copy, plans);
  for (size_t i = 0; i < plans.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("member ", i, ", ", plans[i]->method()));
    const std::vector<CollectingSink> alone = RunTogether(copy, {plans[i]});
    ASSERT_TRUE(together[i].summary && alone[0].summary);
    ExpectSame(together[i], alone[0], tolerance_);
  }
}

void BatchConformanceTest::CompareWithSplit(at::Device device,
                                            at::Device other) {
  Open(device);
  BuildOptions options{device};
  for (int64_t layer = 0; layer < info_.num_layers; ++layer) {
    options.stages.push_back({layer % 2 == 0 ? other : device, 1});
  }
  const ModelCopy split = MakeCopy(options);
  EXPECT_EQ(std::ssize(split.network->info().layer_bytes), info_.num_layers);
  for (const ExplainRequest& request : Requests({1, 19})) {
    SCOPED_TRACE(request.method);
    const auto plan = MakePlan(request);
    ASSERT_NE(plan, nullptr);
    const auto whole = RunTogether(model_->FirstCopy(), {plan});
    const auto apart = RunTogether(split, {plan});
    ASSERT_TRUE(whole[0].summary && apart[0].summary);
    ExpectSame(apart[0], whole[0], tolerance_);
  }
}

void BatchConformanceTest::CompareBatches() {
  CompareWithAlone(Requests({19}));
  CompareWithAlone(AlikeRequests({19, 19, 19}));
  // Of very different lengths, and around those at which kernels cut.
  CompareWithAlone(Requests({9, 1, 257, 2, 23, 63, 64, 65, 33, 5}));
  CompareWithAlone(AlikeRequests({1, 257, 63, 64, 65, 257, 1}));
}

TEST_P(BatchConformanceTest, MembersGetWhatTheyGetAlone) {
  Open(at::kCPU);
  CompareBatches();
}

TEST_P(BatchConformanceTest, SplitNetworksSayTheSame) {
  CompareWithSplit(at::kCPU, at::kCPU);
}

using DeviceBatchTest = BatchConformanceTest;
TEST_P(DeviceBatchTest, MembersGetWhatTheyGetAlone) {
  if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "no CUDA device";
  Open(at::Device(at::kCUDA, 0));
  CompareBatches();
}

// Layers on the CPU among those of a GPU round differently and are nobody's
// setting.
TEST_P(DeviceBatchTest, SplitNetworksSayTheSame) {
  if (at::detail::getCUDAHooks().getNumGPUs() < 2) {
    GTEST_SKIP() << "fewer than two CUDA devices";
  }
  CompareWithSplit(at::Device(at::kCUDA, 0), at::Device(at::kCUDA, 1));
}

INSTANTIATE_TEST_SUITE_P(Architectures, BatchConformanceTest,
                         ::testing::ValuesIn(testing::TinyCases()),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Architectures, DeviceBatchTest,
                         ::testing::ValuesIn(testing::TinyCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace limpid
