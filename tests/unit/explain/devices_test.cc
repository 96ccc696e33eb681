// SPDX-License-Identifier: Apache-2.0
//
// Several devices of one engine, here all the CPU: copies of models, and models
// that are split by layers.
#include "server/base/device_list.h"

#include "tests/unit/explain/engine_testing.h"

namespace limpid {
namespace {

using testing::CheckpointFolder;
using testing::CollectingSink;

TEST(DeviceListTest, ReadsWhatIsWritten) {
  std::string why;
  EXPECT_EQ(ParseDeviceList("auto", why)->kind, DeviceList::Kind::kAuto);
  EXPECT_EQ(ParseDeviceList("cpu", why)->kind, DeviceList::Kind::kCpu);
  const auto gpus = ParseDeviceList("cuda:2,0", why);
  EXPECT_EQ(gpus->kind, DeviceList::Kind::kCuda);
  EXPECT_EQ(gpus->indices, (std::vector<int64_t>{2, 0}));
  for (const char* wrong : {"", "tpu", "cuda:", "cuda:0,", "cuda:0,0", "cuda:x",
                            "cuda:64", "cuda:9999", "auto:1"}) {
    why.clear();
    EXPECT_FALSE(ParseDeviceList(wrong, why)) << wrong;
    EXPECT_FALSE(why.empty()) << wrong;
  }
}

class DevicesTest : public ::testing::Test {
 protected:
  DevicesTest() {
    EngineOptions options;
    options.device = "cpu:0,1,5";
    options.on_device_lost = [](const std::string& device) {
      ADD_FAILURE() << device << " was lost";
    };
    engine_ = *Engine::Create(options);
    request_.input = TokenInput{{22, 9, 36, 35, 2, 7}};
    request_.attention.kind = AttentionKind::kMatrix;
  }

  std::shared_ptr<const Model> Load(const Placement& placement,
                                    const std::string& name = "mamba-tied") {
    auto model = engine_->Load(name, CheckpointFolder(name), 0, placement);
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }
  CollectingSink Explain(const std::shared_ptr<const Model>& model,
                         int64_t device) {
    CollectingSink sink;
    const auto plan = engine_->MakePlan(request_, model);
    EXPECT_TRUE(plan.ok()) << plan.status();
    EXPECT_TRUE(engine_->Run(**plan, sink, CancelToken(), device).ok());
    return sink;
  }

  std::unique_ptr<Engine> engine_;
  ExplainRequest request_;
};

TEST_F(DevicesTest, AreKnownByTheirNames) {
  EXPECT_EQ(engine_->devices(),
            (std::vector<std::string>{"cpu:0", "cpu:1", "cpu:5"}));
  EXPECT_FALSE(engine_->memory(1).has_value());
  const auto model = Load(Placement::On(2));
  EXPECT_EQ(model->info().device, "cpu:5");
  EXPECT_FALSE(model->devices().Has(0));
  EXPECT_TRUE(model->devices().Has(2));
  // Asked for elsewhere it is computed where it is.
  EXPECT_EQ(Explain(model, 0).header->device, "cpu:5");
}

TEST_F(DevicesTest, CopiesComputeTheSame) {
  const auto model = Load(Placement::On(0));
  const int64_t bytes = model->info().resident_bytes;
  const auto first = Explain(model, 0);
  ASSERT_TRUE(engine_->Copy(*model, CheckpointFolder("mamba-tied"), 1).ok());
  EXPECT_EQ(model->device_bytes(),
            (std::map<int64_t, int64_t>{{0, bytes}, {1, bytes}}));
  const auto second = Explain(model, 1);
  EXPECT_EQ(first.header->device, "cpu:0");
  EXPECT_EQ(second.header->device, "cpu:1");
  ASSERT_EQ(first.tensors.size(), second.tensors.size());
  for (const auto& [name, tensor] : first.tensors) {
    EXPECT_EQ(second.tensors.at(name).bytes, tensor.bytes) << name;
  }
  EXPECT_FALSE(engine_->DropCopy(*model, 0)) << "the first one stays";
  EXPECT_TRUE(engine_->DropCopy(*model, 1));
  EXPECT_FALSE(engine_->DropCopy(*model, 1));
  EXPECT_FALSE(model->devices().Has(1));
  EXPECT_EQ(Explain(model, 1).header->device, "cpu:0");
}

// Gives up the copy that it is computed with as soon as it hears of it.
class DroppingSink final : public ResultSink {
 public:
  DroppingSink(const Engine& engine, const Model& model)
      : engine_(engine), model_(model) {}
  absl::Status OnHeader(ResultHeader) override {
    EXPECT_FALSE(engine_.DropCopy(model_, 1)) << "it is in use";
    return absl::OkStatus();
  }
  absl::Status OnProgress(int64_t, int64_t, const char*) override {
    return absl::OkStatus();
  }
  absl::Status OnTensor(NamedTensor) override { return absl::OkStatus(); }
  absl::Status OnSummary(ResultSummary) override { return absl::OkStatus(); }

 private:
  const Engine& engine_;
  const Model& model_;
};

TEST_F(DevicesTest, CopiesInUseStay) {
  const auto model = Load(Placement::On(0));
  ASSERT_TRUE(engine_->Copy(*model, CheckpointFolder("mamba-tied"), 1).ok());
  DroppingSink sink(*engine_, *model);
  const auto plan = engine_->MakePlan(request_, model);
  EXPECT_TRUE(engine_->Run(**plan, sink, CancelToken(), 1).ok());
  EXPECT_TRUE(engine_->DropCopy(*model, 1));
}

TEST_F(DevicesTest, AFolderWithOtherFilesMakesNoCopy) {
  const auto model = Load(Placement::On(0));
  const absl::Status status =
      engine_->Copy(*model, CheckpointFolder("mamba-bias-untied"), 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetails(status).reason, "MODEL_CHANGED");
  EXPECT_FALSE(model->devices().Has(1));
  EXPECT_EQ(engine_->Copy(*model, "/nowhere", 1).code(),
            absl::StatusCode::kNotFound);
}

TEST_F(DevicesTest, SplitModelsComputeTheSame) {
  for (const char* name : {"mamba-tied", "rwkv7-fla", "recurrent-gemma"}) {
    SCOPED_TRACE(name);
    const auto whole = Load(Placement::On(0), name);
    Placement placement;
    placement.stages = {{1, 1}, {0, 1}, {2, 100}};
    const auto split = Load(placement, name);
    EXPECT_EQ(split->info().device, "cpu:1,cpu:0,cpu:5");
    int64_t bytes = 0;
    for (const auto& [device, of_device] : split->device_bytes()) {
      EXPECT_TRUE(split->devices().Has(device));
      bytes += of_device;
    }
    EXPECT_EQ(bytes, whole->info().resident_bytes);
    const auto a = Explain(whole, 0), b = Explain(split, 2);
    EXPECT_EQ(b.header->device, "cpu:1,cpu:0,cpu:5");
    for (const auto& [tensor, value] : a.tensors) {
      EXPECT_EQ(b.tensors.at(tensor).bytes, value.bytes) << tensor;
    }
  }
}

TEST_F(DevicesTest, LayersAreMeasuredWithoutReadingThem) {
  const auto layers = engine_->LayerBytes(CheckpointFolder("mamba-tied"));
  ASSERT_TRUE(layers.ok()) << layers.status();
  const auto model = Load(Placement::On(0));
  EXPECT_EQ(*layers, model->info().layer_bytes);
  EXPECT_EQ(std::ssize(*layers), model->info().num_layers);
  const auto all = engine_->WeightBytes(CheckpointFolder("mamba-tied"));
  ASSERT_TRUE(all.ok());
  EXPECT_GE(*all, model->info().resident_bytes);
}

}  // namespace
}  // namespace limpid
