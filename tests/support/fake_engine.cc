// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_engine.h"

#include <chrono>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace limpid::testing {
namespace {

constexpr int64_t kVocabulary = 10;

class FakePlan final : public Plan {
 public:
  const Model& model() const override { return *lease; }
  const std::string& method() const override { return request.method; }
  const Cost& cost() const override { return price; }
  int64_t num_tokens() const override {
    return static_cast<int64_t>(pieces.size());
  }
  const void* batch_group() const override { return lease.get(); }

  ExplainRequest request;
  std::shared_ptr<const Model> lease;
  std::vector<std::string> pieces;
  Cost price;
  const std::thread::id made_on = std::this_thread::get_id();
};

NamedTensor MakeFloats(const std::string& name, std::vector<int64_t> shape,
                       const std::vector<float>& values) {
  NamedTensor tensor;
  tensor.name = name;
  tensor.shape = std::move(shape);
  tensor.bytes.resize(values.size() * sizeof(float));
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

// [L, L] with 1 up to the diagonal.
NamedTensor MakeMatrix(int64_t length) {
  std::vector<float> values(length * length);
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t j = 0; j <= i; ++j) values[i * length + j] = 1;
  }
  NamedTensor tensor =
      MakeFloats("layers.0.attention", {length, length}, values);
  tensor.lower_triangular = true;
  return tensor;
}

}  // namespace

FakeModel::FakeModel(const std::string& name, const Placement& placement) {
  for (const Placement::Stage& stage : placement.stages) {
    devices_.Add(stage.device);
  }
  info_.name = name;
  info_.architecture = "mamba";
  info_.digest = std::string(64, 'a');
  info_.device = "cpu";
  info_.has_tokenizer = true;
  info_.num_layers = 2;
  info_.hidden_size = 2;
  info_.num_channels = 4;
  info_.state_size = 3;
  info_.vocabulary_size = kVocabulary;
  info_.resident_bytes = 1000;
  info_.layer_bytes = {400, 400};
  info_.forms = {AttentionForm::kFull};
}

std::map<int64_t, int64_t> FakeModel::device_bytes() const {
  std::map<int64_t, int64_t> bytes;
  for (int64_t device = 0; device < kMaxDevices; ++device) {
    if (devices_.Has(device)) bytes[device] = info_.resident_bytes;
  }
  return bytes;
}

void FakeEngine::Hold() {
  std::lock_guard lock(mutex_);
  held_ = true;
}

void FakeEngine::Release() {
  {
    std::lock_guard lock(mutex_);
    held_ = false;
  }
  changed_.notify_all();
}

void FakeEngine::WaitForRuns(int n) const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return num_runs_ >= n; });
}

int FakeEngine::num_tensors_taken() const {
  std::lock_guard lock(mutex_);
  return num_tensors_taken_;
}

int FakeEngine::num_runs() const {
  std::lock_guard lock(mutex_);
  return num_runs_;
}

int FakeEngine::num_runs_on(int64_t device) const {
  std::lock_guard lock(mutex_);
  return num_runs_on_[device];
}

int FakeEngine::num_runs_where_planned() const {
  std::lock_guard lock(mutex_);
  return num_runs_where_planned_;
}

int FakeEngine::num_loads() const {
  std::lock_guard lock(mutex_);
  return num_loads_;
}

absl::StatusOr<std::shared_ptr<const Model>> FakeEngine::Load(
    const std::string& name, const std::string& folder, int64_t version,
    const Placement& placement) const {
  if (on_load) on_load(name);
  {
    std::lock_guard lock(mutex_);
    ++num_loads_;
  }
  for (const std::string& key : {name, folder}) {
    const auto error = load_errors.find(key);
    if (error != load_errors.end()) return error->second;
  }
  auto model = std::make_shared<FakeModel>(name, placement);
  model->mutable_info().version = version;
  return model;
}

absl::Status FakeEngine::Copy(const Model& model, const std::string&,
                              int64_t device) const {
  static_cast<const FakeModel&>(model).mutable_devices().Add(device);
  return absl::OkStatus();
}

bool FakeEngine::DropCopy(const Model& model, int64_t device) const {
  static_cast<const FakeModel&>(model).mutable_devices().Remove(device);
  return true;
}

absl::StatusOr<std::shared_ptr<const Plan>> FakeEngine::MakePlan(
    const ExplainRequest& request, std::shared_ptr<const Model> model) const {
  auto plan = std::make_shared<FakePlan>();
  Violations violations;
  plan->request = request;
  if (request.method.empty()) plan->request.method = "raw-attention";
  if (const auto* text = std::get_if<TextInput>(&request.input)) {
    for (const char c : text->text) plan->pieces.emplace_back(1, c);
  } else if (const auto* tokens = std::get_if<TokenInput>(&request.input)) {
    for (size_t i = 0; i < tokens->ids.size(); ++i) {
      if (tokens->ids[i] < 0 || tokens->ids[i] >= kVocabulary) {
        violations.Add(absl::StrCat("input.tokens.ids[", i, "]"),
                       "must be from 0 to 9");
      }
      plan->pieces.emplace_back("?");
    }
  } else {
    return MakeError(absl::StatusCode::kFailedPrecondition, "WRONG_MODALITY",
                     "the model reads text");
  }
  const int64_t num_layers = model->info().num_layers;
  for (size_t i = 0; i < request.attention.layers.size(); ++i) {
    const int64_t layer = request.attention.layers[i];
    if (layer < 0 || layer >= num_layers) {
      violations.Add(absl::StrCat("attention.layers[", i, "]"),
                     "must be from 0 to 1");
    }
  }
  LIMPID_RETURN_IF_ERROR(violations.ToStatus());
  plan->lease = std::move(model);
  const auto length = static_cast<int64_t>(plan->pieces.size());
  const bool matrix = request.attention.kind == AttentionKind::kMatrix;
  plan->price.reply_bytes =
      4 *
      (length + num_layers * length * (matrix ? length : 1) + num_extra_floats);
  plan->price.compute_seconds = compute_seconds;
  plan->price.peak_bytes = peak_bytes;
  return plan;
}

absl::Status FakeEngine::WaitForRelease(const CancelToken& cancel,
                                        int64_t device) const {
  std::unique_lock lock(mutex_);
  ++num_runs_;
  ++num_runs_on_[device];
  changed_.notify_all();
  while (held_) {
    LIMPID_RETURN_IF_ERROR(cancel.Check());
    changed_.wait_for(lock, std::chrono::milliseconds(1));
  }
  return absl::OkStatus();
}

absl::Status FakeEngine::Run(const Plan& plan, ResultSink& sink,
                             const CancelToken& cancel, int64_t device) const {
  const auto& fake = static_cast<const FakePlan&>(plan);
  const int64_t length = fake.num_tokens();
  if (fake.made_on == std::this_thread::get_id()) {
    std::lock_guard lock(mutex_);
    ++num_runs_where_planned_;
  }
  ResultHeader header;
  header.method = fake.method();
  header.device = device_names[device];
  header.precision = fake.request.precision;
  if (header.precision == Precision::kCheckpoint) {
    header.arithmetic = {"bfloat16", 0.004};
  }
  header.num_positions = length;
  header.positions = {length - 1};
  header.layers = {0};
  for (size_t i = 0; i < fake.pieces.size(); ++i) {
    header.tokens.push_back({1, fake.pieces[i], i, i + 1, false});
  }
  LIMPID_RETURN_IF_ERROR(sink.OnHeader(std::move(header)));
  LIMPID_RETURN_IF_ERROR(WaitForRelease(cancel, device));
  if (run_throws) throw std::runtime_error("thrown by the test");
  LIMPID_RETURN_IF_ERROR(run_status);
  LIMPID_RETURN_IF_ERROR(sink.OnProgress(1, 2, "layer"));
  std::vector<float> values(length);
  std::iota(values.begin(), values.end(), 0.5f);
  int64_t num_tensors = 1;
  LIMPID_RETURN_IF_ERROR(
      sink.OnTensor(MakeFloats("attribution", {length}, values)));
  if (fake.request.attention.kind == AttentionKind::kMatrix) {
    LIMPID_RETURN_IF_ERROR(sink.OnTensor(MakeMatrix(length)));
    ++num_tensors;
  }
  for (int i = 0; num_extra_floats > 0 && i < num_extra_tensors; ++i) {
    std::vector<float> extra(num_extra_floats);
    std::iota(extra.begin(), extra.end(), 0.0f);
    LIMPID_RETURN_IF_ERROR(sink.OnTensor(MakeFloats(
        absl::StrCat("layers.", i, ".value"), {num_extra_floats}, extra)));
    ++num_tensors;
    std::lock_guard lock(mutex_);
    ++num_tensors_taken_;
  }
  ResultSummary summary;
  PointSummary& point = summary.points.emplace_back();
  point.target.id = 7;
  point.predictions = {{7, "\xE9", 1.5f, 0.25f}};
  summary.layers = {{0, 1e-6}};
  point.attribution = values;
  summary.num_tensors = num_tensors;
  summary.cost = fake.cost();
  return sink.OnSummary(std::move(summary));
}

void FakeEngine::RunBatch(const std::vector<BatchMember>& members,
                          int64_t device) const {
  {
    std::lock_guard lock(mutex_);
    batch_sizes_.push_back(std::ssize(members));
  }
  for (const BatchMember& member : members) {
    member.done(Run(*member.plan, *member.sink, member.cancel, device));
  }
}

std::vector<int64_t> FakeEngine::batch_sizes() const {
  std::lock_guard lock(mutex_);
  return batch_sizes_;
}

std::vector<MethodSpec> FakeMethods() {
  MethodSpec raw;
  raw.name = "raw-attention";
  raw.description = "The matrix itself.";
  MethodSpec gradients;
  gradients.name = "integrated-gradients";
  gradients.options = {{"steps", "8 to 1024"}};
  gradients.uses_target = gradients.complete = true;
  gradients.architectures = {"vim"};
  return {raw, gradients};
}

}  // namespace limpid::testing
