// SPDX-License-Identifier: Apache-2.0
#include "server/models/vim.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/models/factored_attention.h"
#include "server/models/layers.h"
#include "server/models/residual_network.h"
#include "server/models/s6.h"
#include "server/models/weights.h"

namespace limpid::architectures::vim {
namespace {

struct Config {
  int64_t height = 0, width = 0;  // of the picture
  int64_t patch = 0, stride = 0;
  int64_t hidden = 0;  // E
  int64_t num_layers = 0;
  int64_t num_classes = 0;  // V
  S6Sizes s6;
  double epsilon = 0;
  bool rms_norm = true;
  bool position_table = true;
  bool middle_class_token = true;
  bool conv_bias = true;
  double scale = 1;  // kappa
  std::vector<std::string> class_names;

  int64_t rows() const { return (height - patch) / stride + 1; }
  int64_t columns() const { return (width - patch) / stride + 1; }
  int64_t patches() const { return rows() * columns(); }
  int64_t class_token() const { return middle_class_token ? patches() / 2 : 0; }
};

void MustBe(HfConfig& file, const char* field, bool wanted, bool fallback) {
  if (file.Bool(field, fallback) != wanted) {
    file.AddError(field, wanted ? "must be true" : "must be false");
  }
}

absl::StatusOr<Config> ReadConfig(HfConfig& file) {
  constexpr int64_t kMaxSide = 4096;
  Config config;
  config.patch = file.Int("patch_size", 16, 1, kMaxSide);
  config.stride = file.Int("stride", config.patch, 1, kMaxSide);
  // One number, or height and width.
  const std::vector<double> sides = file.Doubles("img_size");
  if (sides.size() == 2) {
    config.height = static_cast<int64_t>(sides[0]);
    config.width = static_cast<int64_t>(sides[1]);
  } else if (sides.size() == 1) {
    config.height = config.width = static_cast<int64_t>(sides[0]);
  } else {
    config.height = config.width = 224;
    if (!sides.empty()) file.AddError("img_size", "must be one or two numbers");
  }
  if (config.height < config.patch || config.width < config.patch ||
      config.height > kMaxSide || config.width > kMaxSide) {
    file.AddError("img_size",
                  absl::StrCat("must be from patch_size to ", kMaxSide));
  }
  if (file.Int("channels", 3, 1, kMaxSize) != 3) {
    file.AddError("channels", "must be 3");
  }
  config.hidden = file.RequiredInt("embed_dim", 1, kMaxSize);
  config.num_layers = file.RequiredInt("depth", 1, 4096);
  config.num_classes = file.Int("num_classes", 1000, 1, kMaxSize);
  config.s6.state = file.Int("d_state", 16, 1, kernels::kMaxStateSize);
  config.epsilon = file.Double("norm_epsilon", 1e-5);
  config.rms_norm = file.Bool("rms_norm", true);
  config.position_table = file.Bool("if_abs_pos_embed", true);
  MustBe(file, "if_cls_token", true, true);
  config.middle_class_token = file.Bool("use_middle_cls_token", true);
  MustBe(file, "use_double_cls_token", false, false);
  MustBe(file, "if_bidirectional", false, false);
  MustBe(file, "if_rope", false, false);
  if (file.String("bimamba_type", "v2") != "v2") {
    file.AddError("bimamba_type", "must be \"v2\"");
  }
  // The published code spelt it otherwise at first.
  const char* divide =
      file.Has("if_devide_out") ? "if_devide_out" : "if_divide_out";
  config.scale = file.Bool(divide, true) ? 0.5 : 1;
  HfConfig ssm = file.Object("ssm_cfg");
  config.s6.conv_width = ssm.Int("d_conv", 4, 1, kernels::kMaxConvWidth);
  const double expand = ssm.Double("expand", 2);
  if (!(expand > 0 && expand <= 64)) {
    ssm.AddError("expand", "must be above 0 and at most 64");
  }
  config.s6.inner =
      static_cast<int64_t>(expand * static_cast<double>(config.hidden));
  config.s6.rank = (config.hidden + 15) / 16;
  if (!ssm.IsString("dt_rank")) {
    config.s6.rank = ssm.Int("dt_rank", config.s6.rank, 1, kMaxSize);
  } else if (ssm.String("dt_rank", "auto") != "auto") {
    ssm.AddError("dt_rank", "must be \"auto\" or an integer");
  }
  config.conv_bias = ssm.Bool("conv_bias", true);
  HfConfig names = file.Object("id2label");
  for (int64_t id = 0; id < config.num_classes && names.Has(absl::StrCat(id));
       ++id) {
    config.class_names.push_back(names.String(absl::StrCat(id), ""));
  }
  if (config.class_names.size() != static_cast<size_t>(config.num_classes)) {
    config.class_names.clear();
  }
  LIMPID_RETURN_IF_ERROR(ssm.status());
  LIMPID_RETURN_IF_ERROR(names.status());
  LIMPID_RETURN_IF_ERROR(file.status());
  return config;
}

// RMS or layer norm, as the configuration has it.
struct Norm {
  Affine affine;  // without bias: an RMS norm
  double epsilon = 0;

  at::Tensor Run(const at::Tensor& x, const Pass& pass) const {
    return affine.bias.defined() ? LayerNorm(x, affine, epsilon, pass)
                                 : RmsNorm(x, affine.weight, epsilon, pass);
  }
};

struct LayerWeights {
  Norm norm;
  at::Tensor in_weight;  // [2D, E]
  S6Weights forward, backward;
  at::Tensor out_weight;  // [E, D]
};

class VimLayer final : public Layer {
 public:
  VimLayer(const S6Sizes& sizes, double scale, LayerWeights weights)
      : sizes_(sizes), scale_(scale), weights_(std::move(weights)) {}

  at::Tensor Run(const at::Tensor& stream, Pass& pass) const override;
  int64_t num_channels() const override { return sizes_.inner; }
  LayerCost Cost(int64_t length) const override {
    const int64_t inner = sizes_.inner, hidden = weights_.in_weight.size(1);
    const S6Cost s6 = CostOfS6(sizes_);
    LayerCost cost;
    cost.forward = length * (4 * hidden + 10 * inner + 2 * s6.forward);
    cost.gradient = length * (4 * hidden + 10 * inner + 2 * s6.gradient);
    cost.backward = length * (6 * hidden + 8 * inner + s6.backward);
    cost.map = 12 * inner * length;
    cost.flops = length * (6.0 * inner * hidden + 8.0 * hidden + 2 * s6.flops);
    cost.entry_flops = 2 * s6.entry_flops;
    return cost;
  }

 private:
  const S6Sizes sizes_;
  const double scale_;
  const LayerWeights weights_;
};

at::Tensor VimLayer::Run(const at::Tensor& stream, Pass& pass) const {
  const LayerWeights& w = weights_;
  const int64_t inner = sizes_.inner;
  const at::Tensor both = Project(w.norm.Run(stream, pass), w.in_weight, pass);
  const at::Tensor x = both.narrow(-1, 0, inner);
  AfterScan after;
  after.gate_input = both.narrow(-1, inner, inner);
  after.scale = scale_;
  const auto [ahead, back] =
      RunS6BothWays(x, w.forward, w.backward, sizes_, after, pass);
  const at::Tensor& output = back.y;
  if (pass.visits()) {
    BlockTrace trace;
    trace.directions.push_back(ahead.Trace(w.forward));
    trace.directions.push_back(back.Trace(w.backward));
    trace.directions.back().reversed = true;
    trace.x = x;
    trace.scale = scale_;
    trace.gate = back.gate;
    trace.output = output;
    trace.projection.weight = w.out_weight;
    trace.stream = stream;
    VisitBlocks(pass, std::move(trace));
  }
  return stream + pass.BlockOutput(Project(output, w.out_weight, pass));
}

absl::StatusOr<std::unique_ptr<const Network>> Build(HfConfig& file,
                                                     WeightReader& reader) {
  LIMPID_ASSIGN_OR_RETURN(const Config config, ReadConfig(file));
  const int64_t hidden = config.hidden;
  const auto take_norm = [&](const std::string& name) {
    Norm norm;
    norm.epsilon = config.epsilon;
    if (config.rms_norm) {
      norm.affine.weight = reader.Take({name + ".weight"}, {hidden});
    } else {
      norm.affine = TakeAffine(reader, {name}, hidden);
    }
    return norm;
  };
  const at::Tensor patch_weight = reader.Take(
      {"patch_embed.proj.weight"}, {hidden, 3, config.patch, config.patch});
  const at::Tensor patch_bias =
      reader.Take({"patch_embed.proj.bias"}, {hidden});
  const at::Tensor class_token = reader.Take({"cls_token"}, {1, 1, hidden});
  const at::Tensor positions = reader.TakeIf(
      config.position_table, {"pos_embed"}, {1, config.patches() + 1, hidden});
  const Norm last_norm = take_norm("norm_f");
  const at::Tensor head =
      reader.Take({"head.weight"}, {config.num_classes, hidden});
  const at::Tensor head_bias = reader.Take({"head.bias"}, {config.num_classes});
  std::vector<LayerWeights> layers;
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const WeightReader::Layer reading(reader, index);
    const std::string at_layer = absl::StrCat("layers.", index, ".");
    const std::string mixer = at_layer + "mixer.";
    const int64_t inner = config.s6.inner;
    LayerWeights w;
    w.norm = take_norm(at_layer + "norm");
    w.in_weight = reader.Take({mixer + "in_proj.weight"}, {2 * inner, hidden});
    w.forward = TakeS6(reader, mixer, "", config.s6, config.conv_bias);
    w.backward = TakeS6(reader, mixer, "_b", config.s6, config.conv_bias);
    w.out_weight = reader.Take({mixer + "out_proj.weight"}, {hidden, inner});
    layers.push_back(std::move(w));
  }
  LIMPID_RETURN_IF_ERROR(reader.status());

  ResidualParts parts;
  for (LayerWeights& w : layers) {
    FinishS6(w.forward);
    FinishS6(w.backward);
    parts.layers.push_back(
        std::make_unique<VimLayer>(config.s6, config.scale, std::move(w)));
  }
  ModelInfo& info = parts.info;
  info.architecture = "vim";
  info.modality = Modality::kImage;
  info.causal = false;
  info.hidden_size = hidden;
  info.state_size = config.s6.state;
  info.vocabulary_size = config.num_classes;
  info.forms = {AttentionForm::kFull, AttentionForm::kNoGate,
                AttentionForm::kNoActivation, AttentionForm::kUpstream};
  info.image_height = config.height;
  info.image_width = config.width;
  info.grid_rows = config.rows();
  info.grid_columns = config.columns();
  info.class_token = config.class_token();
  info.class_names = config.class_names;
  parts.SetWeights(reader);
  parts.embed = [=, stride = config.stride,
                 place = config.class_token()](const NetworkInput& input) {
    const at::Tensor pixels =
        input.pixels.to(patch_weight.device(), patch_weight.scalar_type());
    // A product of matrices, not a convolution: on GPUs ATen would load cuDNN's
    // half a gigabyte for this one small step. Float32 in every precision, as
    // convolutions are.
    const int64_t size = patch_weight.size(2);
    const at::Tensor windows = pixels.unfold(2, size, stride)
                                   .unfold(3, size, stride)
                                   .permute({0, 2, 3, 1, 4, 5});
    const at::Tensor patches = at::linear(windows.flatten(3).flatten(1, 2),
                                          patch_weight.flatten(1), patch_bias);
    const at::Tensor tokens =
        at::cat({patches.narrow(1, 0, place),
                 class_token.expand({patches.size(0), 1, -1}),
                 patches.narrow(1, place, patches.size(1) - place)},
                1);
    return positions.defined() ? tokens + positions : tokens;
  };
  parts.head = [=](const at::Tensor& stream, const Pass& pass) {
    return Project(last_norm.Run(stream, pass), head, head_bias, pass);
  };
  return MakeResidualNetwork(std::move(parts));
}

}  // namespace

ArchitectureSpec Spec() {
  ArchitectureSpec spec;
  spec.id = "vim";
  spec.model_types = {"vim"};
  spec.tiny_configs = {
      R"({"model_type": "vim", "img_size": [12, 8], "patch_size": 4,
          "embed_dim": 6, "depth": 2, "d_state": 3, "num_classes": 5})",
      R"({"model_type": "vim", "img_size": 6, "patch_size": 4, "stride": 2,
          "embed_dim": 8, "depth": 2, "d_state": 4, "num_classes": 4,
          "rms_norm": false, "if_divide_out": false,
          "if_abs_pos_embed": false, "use_middle_cls_token": false,
          "ssm_cfg": {"d_conv": 3, "expand": 1.5, "dt_rank": 2}})"};
  spec.build = Build;
  return spec;
}

}  // namespace limpid::architectures::vim
