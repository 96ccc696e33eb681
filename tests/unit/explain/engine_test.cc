// SPDX-License-Identifier: Apache-2.0
#include "server/explain/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "server/attribution/method_spec.h"
#include "tests/support/bfloat16_checkpoint.h"
#include "tests/support/temporary_repository.h"
#include "tests/unit/explain/engine_testing.h"

namespace limpid {
namespace {

using testing::CheckpointFolder;
using testing::CollectingSink;
using testing::EngineTest;

TEST_F(EngineTest, ModelInfoSaysWhatWasLoaded) {
  const ModelInfo& info = model_->info();
  EXPECT_EQ(info.name, "tied");
  EXPECT_EQ(info.architecture, "mamba");
  EXPECT_EQ(info.num_layers, 2);
  EXPECT_EQ(info.hidden_size, 20);
  EXPECT_EQ(info.num_channels, 40);
  EXPECT_EQ(info.state_size, 5);
  EXPECT_EQ(info.vocabulary_size, 37);
  EXPECT_FALSE(info.has_tokenizer);
  EXPECT_EQ(info.digest.size(), 64u);
  EXPECT_GT(info.resident_bytes, 7000 * 4);
}

TEST_F(EngineTest, DefaultReplyHoldsRowsAndAttribution) {
  const CollectingSink reply = Explain(request_);
  EXPECT_EQ(reply.header->method, "raw-attention");
  EXPECT_EQ(reply.header->positions, (std::vector<int64_t>{12}));
  EXPECT_EQ(reply.header->tokens.size(), 13u);
  EXPECT_EQ(reply.Floats("attribution").size(), 13u);
  EXPECT_EQ(reply.Floats("layers.0.attention").size(), 13u);
  EXPECT_EQ(reply.Floats("layers.1.attention").size(), 13u);
  EXPECT_EQ(reply.tensors.at("attribution.layers").shape,
            (std::vector<int64_t>{2, 13}));
  EXPECT_EQ(reply.tensors.count("logits"), 0u);
  EXPECT_EQ(reply.summary->points[0].predictions.size(), 5u);
  EXPECT_EQ(reply.summary->points[0].target.id,
            reply.summary->points[0].predictions[0].id);
  ASSERT_EQ(reply.summary->layers.size(), 2u);
  for (const LayerReport& layer : reply.summary->layers) {
    EXPECT_LE(layer.reconstruction_error, 1e-5);
    EXPECT_GT(layer.reconstruction_error, 0);
  }
  EXPECT_EQ(reply.summary->num_non_finite, 0);
  // Raw attention is the mean of the layers' rows.
  const auto values = reply.Floats("attribution");
  const auto first = reply.Floats("layers.0.attention");
  const auto second = reply.Floats("layers.1.attention");
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_NEAR(values[i], (first[i] + second[i]) / 2, 1e-6);
  }
}

TEST_F(EngineTest, RowsAndMatricesAgreeAtEveryPosition) {
  request_.attention.kind = AttentionKind::kMatrix;
  const CollectingSink all = Explain(request_);
  const auto matrix = all.Floats("layers.1.attention");
  ASSERT_EQ(matrix.size(), 13u * 13u);
  EXPECT_TRUE(all.tensors.at("layers.1.attention").lower_triangular);
  request_.attention.kind = AttentionKind::kRow;
  for (const int64_t position : {0, 5, 12}) {
    request_.points[0].position = {Position::Kind::kIndex, position};
    const auto row = Explain(request_).Floats("layers.1.attention");
    for (int64_t j = 0; j < 13; ++j) {
      EXPECT_NEAR(row[j], matrix[position * 13 + j], 1e-6);
    }
  }
}

TEST_F(EngineTest, PerChannelTensorsSatisfyTheIdentity) {
  request_.attention.kind = AttentionKind::kMatrix;
  request_.attention.reduction = ChannelReduction::kAll;
  request_.debug_tensors = true;
  for (const std::vector<int64_t>& channels :
       {std::vector<int64_t>{}, std::vector<int64_t>{7, 3}}) {
    request_.attention.channels = channels;
    const CollectingSink reply = Explain(request_);
    const int64_t count = channels.empty() ? 40 : 2;
    const auto alpha = reply.Floats("layers.0.attention");
    const auto value = reply.Floats("layers.0.value");
    const auto bias = reply.Floats("layers.0.bias");
    const auto output = reply.Floats("layers.0.output");
    ASSERT_EQ(alpha.size(), static_cast<size_t>(count * 13 * 13));
    ASSERT_EQ(output.size(), static_cast<size_t>(count * 13));
    double worst = 0, scale = 0;
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t i = 0; i < 13; ++i) {
        double sum = bias[i * count + c];
        for (int64_t j = 0; j < 13; ++j) {
          sum += double{alpha[(c * 13 + i) * 13 + j]} * value[j * count + c];
        }
        worst = std::max(worst, std::abs(sum - output[i * count + c]));
        scale = std::max<double>(scale, std::abs(output[i * count + c]));
      }
    }
    EXPECT_LE(worst / scale, 1e-5);
  }
}

TEST_F(EngineTest, HeadsHaveOneMatrixEach) {
  const auto loaded = engine_->Load("heads", CheckpointFolder("mamba2-g2"));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  model_ = *loaded;
  const int64_t heads = model_->info().layer_heads[0];
  const int64_t channels = model_->info().num_channels;
  request_.input = TokenInput{{1, 2, 3, 4, 5}};
  request_.attention.head_form = true;
  request_.attention.form = AttentionForm::kState;
  const CollectingSink row = Explain(request_);
  EXPECT_EQ(row.tensors.at("layers.0.attention").shape,
            (std::vector<int64_t>{heads, 5}));
  EXPECT_EQ(row.tensors.at("layers.0.bias").shape,
            (std::vector<int64_t>{channels}));
  request_.attention.kind = AttentionKind::kMatrix;
  request_.debug_tensors = true;
  const CollectingSink reply = Explain(request_);
  EXPECT_EQ(reply.tensors.at("layers.0.attention").shape,
            (std::vector<int64_t>{heads, 5, 5}));
  EXPECT_EQ(reply.tensors.at("layers.0.bias").shape,
            (std::vector<int64_t>{5, channels}));
  const auto matrix = reply.Floats("layers.0.attention");
  const auto value = reply.Floats("layers.0.value");
  const auto output = reply.Floats("layers.0.output");
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t head = c / (channels / heads);
    for (int64_t i = 0; i < 5; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < 5; ++j) {
        sum += matrix[(head * 5 + i) * 5 + j] * value[j * channels + c];
      }
      EXPECT_NEAR(sum, output[i * channels + c], 1e-5) << c << " " << i;
    }
  }

  request_.attention.form = AttentionForm::kFull;
  request_.attention.include_skip = true;
  request_.attention.reduction = ChannelReduction::kMean;
  EXPECT_EQ(ViolatedFields(request_),
            (std::set<std::string>{"attention.form", "attention.include_skip",
                                   "attention.channel_reduction"}));
}

// Griffin's attention layers have heads, its recurrent ones have not.
TEST_F(EngineTest, HeadFormIsRefusedWhereThereAreNoHeads) {
  const auto code = absl::StatusCode::kFailedPrecondition;
  request_.attention.head_form = true;
  request_.attention.form = AttentionForm::kState;
  EXPECT_EQ(Reason(request_, code), "FORM_NOT_SUPPORTED_BY_ARCHITECTURE");
  const auto loaded =
      engine_->Load("mixed", CheckpointFolder("recurrent-gemma"));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  model_ = *loaded;
  request_.input = TokenInput{{1, 2, 3}};
  EXPECT_EQ(Reason(request_, code), "FORM_NOT_SUPPORTED_BY_ARCHITECTURE");
  const std::vector<int64_t>& heads = model_->info().layer_heads;
  for (size_t layer = 0; layer < heads.size(); ++layer) {
    if (heads[layer] > 0) {
      request_.attention.layers.push_back(static_cast<int64_t>(layer));
    }
  }
  ASSERT_FALSE(request_.attention.layers.empty());
  EXPECT_TRUE(Explain(request_).summary.has_value());
}

TEST_F(EngineTest, RolloutIsTheProductOfNormalisedMatrices) {
  request_.method = "attention-rollout";
  request_.attention.kind = AttentionKind::kMatrix;
  request_.points[0].position = {Position::Kind::kIndex, 9};
  const CollectingSink reply = Explain(request_);
  const int n = 13;
  std::vector<double> rollout(n, 0);
  rollout[9] = 1;
  for (int layer = 1; layer >= 0; --layer) {
    const auto matrix =
        reply.Floats("layers." + std::to_string(layer) + ".attention");
    std::vector<double> next(n, 0);
    for (int i = 0; i < n; ++i) {
      double sum = 1;
      for (int j = 0; j < n; ++j) sum += matrix[i * n + j];
      for (int j = 0; j < n; ++j) {
        next[j] += rollout[i] * (matrix[i * n + j] + (i == j)) / sum;
      }
    }
    rollout = next;
  }
  const auto values = reply.Floats("attribution");
  for (int j = 0; j < n; ++j) EXPECT_NEAR(values[j], rollout[j], 1e-6);
}

TEST_F(EngineTest, IntegratedGradientsBecomeCompleteWithSteps) {
  request_.method = "integrated-gradients";
  request_.options.steps = 32;
  const double coarse =
      std::abs(*Explain(request_).summary->points[0].completeness_error);
  request_.options.steps = 512;
  const double fine =
      std::abs(*Explain(request_).summary->points[0].completeness_error);
  EXPECT_LT(fine, 0.02);
  EXPECT_LT(fine, coarse);
}

TEST_F(EngineTest, GradientMethodsReturnTheirDebugTensors) {
  request_.method = "input-x-gradient";
  request_.debug_tensors = true;
  request_.attention.kind = AttentionKind::kNone;
  request_.logits = true;
  request_.points[0].target = {Target::Kind::kContrast, 3, 4};
  const CollectingSink reply = Explain(request_);
  EXPECT_EQ(reply.summary->points[0].target.id, 3);
  EXPECT_EQ(reply.summary->points[0].target.baseline_id, 4);
  EXPECT_EQ(reply.tensors.at("gradient").shape, (std::vector<int64_t>{13, 20}));
  EXPECT_EQ(reply.tensors.at("logits").shape, (std::vector<int64_t>{37}));
  EXPECT_EQ(reply.tensors.count("layers.0.attention"), 0u);
  // The residual is there although no attention was asked for.
  EXPECT_EQ(reply.summary->layers.size(), 2u);
  const auto elementwise = reply.Floats("attribution.elementwise");
  const auto values = reply.Floats("attribution");
  for (int t = 0; t < 13; ++t) {
    double sum = 0;
    for (int e = 0; e < 20; ++e) sum += elementwise[t * 20 + e];
    EXPECT_NEAR(sum, values[t], 1e-5);
  }
}

TEST_F(EngineTest, EveryMethodAndFormAndReductionRuns) {
  for (const MethodSpec& method : ListedMethods()) {
    for (const AttentionForm form : model_->info().forms) {
      for (const ChannelReduction reduction :
           {ChannelReduction::kMeanAbs, ChannelReduction::kMeanPos,
            ChannelReduction::kWnorm, ChannelReduction::kAll}) {
        request_.method = method.name;
        request_.attention.form = form;
        request_.attention.reduction = reduction;
        const CollectingSink reply = Explain(request_);
        EXPECT_LE(reply.summary->layers[0].reconstruction_error, 1e-5)
            << method.name << " " << FormName(form);
      }
    }
  }
}

TEST_F(EngineTest, SeveralPointsAreWhatEachIsAlone) {
  for (const MethodSpec& method : ListedMethods()) {
    request_.method = method.name;
    request_.logits = true;
    request_.points = {{{Position::Kind::kIndex, 1}, {Target::Kind::kNext}},
                       {{Position::Kind::kIndex, 4}, {}}};
    const CollectingSink both = Explain(request_);
    ASSERT_EQ(both.summary->points.size(), 2u);
    request_.points = {{{Position::Kind::kIndex, 4}, {}}};
    const CollectingSink second = Explain(request_);
    for (const char* name : {"attribution", "logits", "layers.1.attention"}) {
      const std::vector<float> expected = second.Floats(name);
      const std::vector<float> got =
          both.Floats(std::string("points.1.") + name);
      ASSERT_EQ(got.size(), expected.size()) << name;
      double scale = 0;
      for (const float value : expected) {
        scale = std::max<double>(scale, std::abs(value));
      }
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_NEAR(got[i], expected[i], 2e-5 * scale)
            << method.name << " " << name;
      }
    }
    EXPECT_EQ(both.summary->points[1].target.id,
              second.summary->points[0].target.id);
    EXPECT_EQ(both.summary->points[0].target.id,
              std::get<TokenInput>(request_.input).ids[2]);
    EXPECT_EQ(both.summary->num_tensors,
              static_cast<int64_t>(both.tensors.size()));
  }
}

TEST_F(EngineTest, FaithfulnessStartsAndEndsAtTheSameScores) {
  request_.method = "occlusion";
  request_.faithfulness.emplace().random_orders = 5;
  const CollectingSink reply = Explain(request_);
  const PointSummary& point = reply.summary->points[0];
  ASSERT_TRUE(point.faithfulness.has_value());
  const Faithfulness& measured = *point.faithfulness;
  const auto length = std::get<TokenInput>(request_.input).ids.size();
  for (const FaithfulnessCurve* curve :
       {&measured.deletion, &measured.insertion}) {
    ASSERT_EQ(curve->fractions.size(), length + 1);
    ASSERT_EQ(curve->scores.size(), length + 1);
    EXPECT_EQ(curve->fractions.front(), 0);
    EXPECT_EQ(curve->fractions.back(), 1);
    EXPECT_NEAR(curve->area, AreaUnder(curve->fractions, curve->scores), 1e-12);
    EXPECT_EQ(curve->random_area, measured.deletion.random_area);
  }
  EXPECT_EQ(measured.deletion.scores.front(), measured.insertion.scores.back());
  EXPECT_EQ(measured.deletion.scores.back(), measured.insertion.scores.front());
  EXPECT_NEAR(measured.deletion.scores.front(),
              point.predictions.front().probability, 1e-6);
  EXPECT_EQ(measured.random_orders, 5);
  const CollectingSink again = Explain(request_);
  EXPECT_EQ(again.summary->points[0].faithfulness->deletion.random_area,
            measured.deletion.random_area);
  request_.faithfulness->seed = 1;
  const CollectingSink other = Explain(request_);
  EXPECT_NE(other.summary->points[0].faithfulness->deletion.random_area,
            measured.deletion.random_area);
}

TEST_F(EngineTest, FaithfulnessIsPriced) {
  const auto flops = [&] {
    return engine_->MakePlan(request_, model_).value()->cost().flops;
  };
  const double without = flops();
  request_.faithfulness.emplace();
  EXPECT_GT(flops(), 10 * without);
}

TEST_F(EngineTest, UnitsAreSums) {
  request_.aggregation.unit = AggregationRequest::Unit::kSpan;
  request_.aggregation.spans = {{0, 2}, {3, 4}};
  const CollectingSink reply = Explain(request_);
  const std::vector<float> values = reply.Floats("attribution");
  const std::vector<float> units = reply.Floats("attribution.units");
  ASSERT_EQ(units.size(), 2u);
  EXPECT_FLOAT_EQ(units[0], values[0] + values[1]);
  EXPECT_FLOAT_EQ(units[1], values[3]);
  EXPECT_EQ(reply.summary->points[0].units, units);
  EXPECT_EQ(reply.summary->units[1].begin, 3u);

  request_.aggregation.spans = {{0, 2}, {1, 3}, {2, 2}, {0, 1000}};
  EXPECT_EQ(
      ViolatedFields(request_),
      (std::set<std::string>{"aggregation.spans[1]", "aggregation.spans[2]",
                             "aggregation.spans[3]"}));
  request_.aggregation.unit = AggregationRequest::Unit::kWord;
  EXPECT_EQ(ViolatedFields(request_),
            (std::set<std::string>{"aggregation.unit"}));
  request_.aggregation.unit = AggregationRequest::Unit::kRegion;
  EXPECT_EQ(ViolatedFields(request_),
            (std::set<std::string>{"aggregation.unit"}));
}

TEST_F(EngineTest, ReturnedAttentionCanBeThinned) {
  request_.attention.kind = AttentionKind::kMatrix;
  const std::vector<float> whole =
      Explain(request_).Floats("layers.0.attention");  // [13, 13]
  request_.attention.downsample = 5;
  const CollectingSink blocks = Explain(request_);
  const NamedTensor& tensor = blocks.tensors.at("layers.0.attention");
  EXPECT_EQ(tensor.shape, (std::vector<int64_t>{3, 3}));
  EXPECT_TRUE(tensor.lower_triangular);
  const std::vector<float> means = blocks.Floats("layers.0.attention");
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t column = 0; column < 3; ++column) {
      double sum = 0;
      int64_t count = 0;
      for (int64_t i = 5 * row; i < std::min<int64_t>(13, 5 * row + 5); ++i) {
        for (int64_t j = 5 * column; j < std::min<int64_t>(13, 5 * column + 5);
             ++j, ++count) {
          sum += whole[i * 13 + j];
        }
      }
      EXPECT_NEAR(means[row * 3 + column], sum / count, 1e-6);
    }
  }
  request_.attention.downsample = 1;
  request_.attention.kind = AttentionKind::kRow;
  const std::vector<float> row = Explain(request_).Floats("layers.0.attention");
  request_.attention.top_k = 3;
  const std::vector<float> kept =
      Explain(request_).Floats("layers.0.attention");
  std::vector<float> sizes;
  for (const float value : row) sizes.push_back(std::abs(value));
  std::sort(sizes.rbegin(), sizes.rend());
  for (size_t i = 0; i < row.size(); ++i) {
    EXPECT_EQ(kept[i], std::abs(row[i]) >= sizes[2] ? row[i] : 0);
  }
}

TEST_F(EngineTest, OneTokenIsEnough) {
  for (const MethodSpec& method : ListedMethods()) {
    request_.input = TokenInput{{3}};
    request_.method = method.name;
    request_.attention.kind = AttentionKind::kMatrix;
    EXPECT_EQ(Explain(request_).Floats("attribution").size(), 1u);
  }
}

TEST_F(EngineTest, CancellationAndDeadlinesStopTheWorkBetweenLayers) {
  const auto plan = *engine_->MakePlan(request_, model_);
  CollectingSink sink;
  CancelToken cancel;
  sink.on_progress = [&](int64_t, int64_t) {
    cancel.Cancel();
    return absl::OkStatus();
  };
  EXPECT_EQ(engine_->Run(*plan, sink, cancel).code(),
            absl::StatusCode::kCancelled);
  EXPECT_FALSE(sink.summary.has_value());
  CollectingSink late;
  EXPECT_EQ(
      engine_->Run(*plan, late, CancelToken(absl::Now() - absl::Seconds(1)))
          .code(),
      absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(late.header.has_value());
}

TEST_F(EngineTest, AFailingSinkEndsTheWorkWithItsStatus) {
  const auto plan = *engine_->MakePlan(request_, model_);
  CollectingSink sink;
  sink.on_progress = [](int64_t, int64_t) {
    return absl::UnavailableError("reader gone");
  };
  EXPECT_EQ(engine_->Run(*plan, sink, CancelToken()).code(),
            absl::StatusCode::kUnavailable);
}

// |a - b| / |b|.
double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double error = 0, size = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return std::sqrt(error / size);
}

TEST_F(EngineTest, PrecisionsAreServedAndTellTheirError) {
  const testing::TemporaryRepository repository;
  const std::string folder = repository.path() + "/short";
  testing::CopyAsBfloat16(CheckpointFolder("mamba-tied"), folder);
  auto model = engine_->Load("short", folder);
  ASSERT_TRUE(model.ok()) << model.status();
  model_ = *std::move(model);
  request_.logits = true;
  const CollectingSink exact = Explain(request_);
  EXPECT_EQ(exact.header->precision, Precision::kFloat32);
  EXPECT_EQ(exact.header->arithmetic.operands, "float32");
  EXPECT_EQ(exact.header->arithmetic.logits_error, 0);

  request_.precision = Precision::kCheckpoint;
  const CollectingSink rounded = Explain(request_);
  EXPECT_EQ(rounded.header->precision, Precision::kCheckpoint);
  EXPECT_EQ(rounded.header->arithmetic.operands, "bfloat16");
  const double told = rounded.header->arithmetic.logits_error;
  EXPECT_GT(told, 1e-4);
  EXPECT_LT(told, 2e-2);
  const double seen =
      Distance(rounded.Floats("logits"), exact.Floats("logits"));
  EXPECT_GT(seen, told / 5);
  EXPECT_LT(seen, told * 5);
  for (const LayerReport& layer : rounded.summary->layers) {
    EXPECT_LE(layer.reconstruction_error, 1e-5);
  }
  EXPECT_GT(rounded.summary->cost.peak_bytes, exact.summary->cost.peak_bytes);

  // On a CPU nothing shorter is faster.
  request_.precision = Precision::kFast;
  const CollectingSink fast = Explain(request_);
  EXPECT_EQ(fast.header->precision, Precision::kFast);
  EXPECT_EQ(fast.header->arithmetic.operands, "float32");
  EXPECT_EQ(fast.Floats("logits"), exact.Floats("logits"));
}

TEST_F(EngineTest, OfAFloat32CheckpointItsPrecisionIsFloat32) {
  const std::vector<float> exact = Explain(request_).Floats("attribution");
  request_.precision = Precision::kCheckpoint;
  const CollectingSink reply = Explain(request_);
  EXPECT_EQ(reply.header->arithmetic.operands, "float32");
  EXPECT_EQ(reply.header->arithmetic.logits_error, 0);
  EXPECT_EQ(reply.Floats("attribution"), exact);
}

TEST(EngineCreateTest, DevicesAreCheckedByName) {
  EngineOptions options;
  options.device = "abacus";
  EXPECT_EQ(Engine::Create(options).status().code(),
            absl::StatusCode::kInvalidArgument);
  options.device = "cuda:63";
  const absl::Status status = Engine::Create(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetails(status).reason, "DEVICE_UNAVAILABLE");
}

TEST(EngineLoadTest, FoldersThatCanNotBeReadSayWhy) {
  EngineOptions options;
  options.device = "cpu";
  const auto engine = *Engine::Create(options);
  EXPECT_EQ(engine->Load("x", CheckpointFolder("not-there")).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace limpid
