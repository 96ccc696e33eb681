// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/cases.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/reduce/sinks.h"
#include "tests/bench/random_weights.h"

namespace limpid::bench {
namespace {

constexpr char kMamba130m[] =
    R"({"model_type": "mamba", "vocab_size": 50280, "hidden_size": 768,
        "state_size": 16, "num_hidden_layers": 24})";
constexpr char kMambaLayer[] =
    R"({"model_type": "mamba", "vocab_size": 64, "hidden_size": 768,
        "state_size": 16, "num_hidden_layers": 1})";
constexpr char kRwkv169m[] =
    R"({"model_type": "rwkv", "vocab_size": 50277, "hidden_size": 768,
        "num_hidden_layers": 12})";
constexpr char kGriffinLayer[] =
    R"({"model_type": "recurrent_gemma", "vocab_size": 64,
        "hidden_size": 2560, "lru_width": 2560, "intermediate_size": 15360,
        "num_attention_heads": 10, "num_key_value_heads": 1,
        "num_hidden_layers": 1, "block_types": ["recurrent"]})";
// Layers whose channels share the matrices of heads.
constexpr char kMamba2Layer[] =
    R"({"model_type": "mamba2", "vocab_size": 64, "hidden_size": 768,
        "num_heads": 24, "head_dim": 64, "n_groups": 1, "state_size": 128,
        "num_hidden_layers": 1})";
constexpr char kRwkv7Layer[] =
    R"({"model_type": "rwkv7", "vocab_size": 64, "hidden_size": 768,
        "head_dim": 64, "num_hidden_layers": 1})";
constexpr char kGlaLayer[] =
    R"({"model_type": "gla", "vocab_size": 64, "hidden_size": 1024,
        "num_heads": 4, "num_hidden_layers": 1})";
constexpr char kVimSmall[] =
    R"({"model_type": "vim", "img_size": 224, "patch_size": 16, "stride": 16,
        "channels": 3, "embed_dim": 384, "depth": 24, "d_state": 16,
        "num_classes": 1000, "rms_norm": true, "residual_in_fp32": true,
        "if_abs_pos_embed": true, "if_cls_token": true,
        "use_middle_cls_token": true, "if_divide_out": true,
        "bimamba_type": "v2"})";

// What attention of every layer is looked at.
enum class Rows { kNone, kLast, kAll };

void Check(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

// Networks stay for further cases of the same run.
absl::StatusOr<std::shared_ptr<const RandomNetwork>> SharedNetwork(
    const std::string& config, const BuildOptions& options) {
  static auto& known =
      *new std::map<std::string, std::shared_ptr<const RandomNetwork>>;
  auto& network = known[absl::StrCat(options.device.str(),
                                     static_cast<int>(options.dtype), config)];
  if (network == nullptr) {
    LIMPID_ASSIGN_OR_RETURN(RandomNetwork made, MakeNetwork(config, options));
    network = std::make_shared<const RandomNetwork>(std::move(made));
  }
  return network;
}

NetworkInput RandomInput(const Network& network, int64_t batch,
                         int64_t length) {
  at::manual_seed(2);
  const ModelInfo& info = network.info();
  NetworkInput input;
  if (info.modality == Modality::kImage) {
    input.pixels = at::randn({batch, 3, info.image_height, info.image_width});
  } else {
    input.token_ids =
        at::randint(info.vocabulary_size, {batch, length}, at::kLong);
  }
  return input;
}

// A forward pass with the logits of the last position, which it returns, and
// mean-abs attention, its matrices given to `on_matrix`, and its reconstruction
// measured.
at::Tensor Run(
    const Network& network, const at::Tensor& embeddings, Rows rows,
    const std::function<void(const at::Tensor& matrix)>& on_matrix = {}) {
  const c10::InferenceMode guard;
  const int64_t length = embeddings.size(1);
  const RowRange range =
      rows == Rows::kLast ? RowRange{length - 1, length} : RowRange{0, length};
  const LayerVisitor visitor = [&](int64_t, int64_t,
                                   const BlockAttention& attention) {
    const MatrixForm form;
    ReconstructionMeter meter(attention, form, range);
    ChannelReducer reducer(ChannelReduction::kMeanAbs, attention, range);
    LIMPID_RETURN_IF_ERROR(ReduceChannels(attention, form, range, {&reducer},
                                          &meter, CancelToken()));
    meter.Finish();
    const at::Tensor matrix = reducer.Finish();
    if (on_matrix) on_matrix(matrix);
    return absl::OkStatus();
  };
  const auto logits = network.Forward(
      embeddings, {length - 1}, rows == Rows::kNone ? LayerVisitor() : visitor,
      CancelToken());
  Check(logits.status());
  return *logits;
}

// Relative L2 difference of what two networks make of an input: all layers'
// matrices, or the logits if none are looked at.
double Difference(const Network& network, const Network& exact,
                  const NetworkInput& input, Rows rows) {
  const c10::InferenceMode guard;
  const auto made = [&](const Network& by) {
    std::vector<at::Tensor> tensors;
    const at::Tensor logits =
        Run(by, by.Embed(input), rows,
            [&](const at::Tensor& matrix) { tensors.push_back(matrix); });
    if (rows == Rows::kNone) tensors.push_back(logits);
    return tensors;
  };
  const std::vector<at::Tensor> expected = made(exact);
  double difference = 0, size = 0;
  size_t index = 0;
  for (const at::Tensor& tensor : made(network)) {
    const at::Tensor other = expected[index++].to(at::kDouble);
    difference +=
        (tensor.to(at::kDouble) - other).square().sum().item().toDouble();
    size += other.square().sum().item().toDouble();
  }
  return std::sqrt(difference / size);
}

// Of a Mamba with random weights, as its size grows.
struct Growth {
  int64_t length = 1024;
  int64_t channels = 1536;  // D
  int64_t states = 16;      // N
  int64_t layers = 1;
};

// What a case's line says of its error.
enum class Error { kNothing, kToDouble, kToFloat32 };

Case NetworkCase(const std::string& model, const std::string& config, Rows rows,
                 int64_t length, bool on_cpu, Error error = Error::kNothing,
                 int64_t batch = 1, Precision precision = Precision::kFloat32) {
  const char* const what = rows == Rows::kNone   ? "forward"
                           : rows == Rows::kLast ? "rows"
                                                 : "matrices";
  Case out;
  out.name = absl::StrCat(model, "/", what, "/L=", length);
  if (batch > 1) absl::StrAppend(&out.name, "/B=", batch);
  if (precision == Precision::kCheckpoint) out.name += "/checkpoint";
  if (precision == Precision::kFast) out.name += "/fast";
  out.on_cpu = on_cpu;
  out.prepare = [=](at::Device device) -> absl::StatusOr<Prepared> {
    LIMPID_ASSIGN_OR_RETURN(std::shared_ptr<const RandomNetwork> loaded,
                            SharedNetwork(config, {device, at::kFloat}));
    const Network* const network = &loaded->network->In(precision);
    const NetworkInput input = RandomInput(*network, batch, length);
    at::Tensor embeddings;
    {
      const c10::InferenceMode guard;
      embeddings = network->Embed(input);
    }
    Prepared prepared;
    prepared.work = [=] { Run(*network, embeddings, rows); };
    prepared.flops = batch * network->ForwardFlops(length);
    prepared.bytes = loaded->weight_bytes;
    if (rows == Rows::kAll) {
      const int64_t matrices = batch * network->info().num_layers;
      prepared.baseline = [=] { Run(*network, embeddings, Rows::kNone); };
      prepared.flops = matrices * network->AttentionFlops(length, length);
      prepared.bytes = 1.0 * matrices * length * length * sizeof(float);
    }
    if (rows == Rows::kAll && device.is_cuda()) {
      const at::Tensor on_host = at::empty(
          {length, length}, at::TensorOptions(at::kFloat).pinned_memory(true));
      prepared.to_host = [=] {
        Run(*network, embeddings, rows, [&](const at::Tensor& matrix) {
          on_host.copy_(matrix, /*non_blocking=*/true);
        });
      };
    }
    if (error != Error::kNothing) {
      prepared.extra = [=] {
        std::shared_ptr<const RandomNetwork> exact = loaded;
        if (error == Error::kToDouble) {
          const auto other = SharedNetwork(config, {device, at::kDouble});
          Check(other.status());
          exact = *other;
        }
        return absl::StrCat(error == Error::kToDouble
                                ? "\"relative_l2_error\": "
                                : "\"relative_l2_to_float32\": ",
                            Difference(*network, *exact->network, input, rows));
      };
    }
    return prepared;
  };
  return out;
}

Case GrowthCase(const Growth& size) {
  const std::string config = absl::StrCat(
      R"({"model_type": "mamba", "vocab_size": 64, "hidden_size": )",
      size.channels / 2, R"(, "state_size": )", size.states,
      R"(, "num_hidden_layers": )", size.layers, "}");
  Case out = NetworkCase("mamba", config, Rows::kAll, size.length, false);
  out.name =
      absl::StrCat("growth/matrices/L=", size.length, "/D=", size.channels,
                   "/N=", size.states, "/layers=", size.layers);
  return out;
}

// Forward passes of sequences of very different lengths, packed into one or one
// by one.
Case MixedCase(bool packed) {
  const std::vector<int64_t> lengths = {96, 8, 64, 16, 40, 4, 20, 8};
  Case out;
  out.name =
      absl::StrCat("mamba-130m/mixed/", packed ? "packed" : "one-by-one");
  out.on_cpu = true;
  out.prepare = [=](at::Device device) -> absl::StatusOr<Prepared> {
    LIMPID_ASSIGN_OR_RETURN(std::shared_ptr<const RandomNetwork> loaded,
                            SharedNetwork(kMamba130m, {device, at::kFloat}));
    const Network* const network = loaded->network.get();
    Prepared prepared;
    prepared.bytes = loaded->weight_bytes;
    Sequences sequences;
    sequences.packing = Packing(lengths);
    std::vector<at::Tensor> embeddings;
    const c10::InferenceMode guard;
    for (const int64_t length : lengths) {
      sequences.positions.push_back({length - 1});
      embeddings.push_back(network->Embed(RandomInput(*network, 1, length)));
      prepared.flops += network->ForwardFlops(length);
    }
    const at::Tensor all = at::cat(embeddings, 1);
    prepared.work = [=] {
      if (packed) {
        Check(network
                  ->ForwardSequences(all, sequences, LayerVisitor(),
                                     CancelToken())
                  .status());
        return;
      }
      for (const at::Tensor& one : embeddings) Run(*network, one, Rows::kNone);
    };
    return prepared;
  };
  return out;
}

}  // namespace

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const int64_t length : {256, 1024, 4096}) {
    const bool small = length == 256;
    for (const Rows rows : {Rows::kNone, Rows::kLast, Rows::kAll}) {
      cases.push_back(NetworkCase(
          "mamba-130m", kMamba130m, rows, length, small && rows != Rows::kAll,
          rows == Rows::kAll && length == 1024 ? Error::kToDouble
                                               : Error::kNothing));
    }
  }
  for (const bool packed : {false, true}) cases.push_back(MixedCase(packed));
  for (const int64_t length : {64, 256, 1024}) {
    cases.push_back(NetworkCase("mamba-130m-layer", kMambaLayer, Rows::kAll,
                                length, length <= 256));
  }
  for (const Rows rows : {Rows::kNone, Rows::kLast, Rows::kAll}) {
    cases.push_back(
        NetworkCase("rwkv-4-169m", kRwkv169m, rows, 1024, false,
                    rows == Rows::kAll ? Error::kToDouble : Error::kNothing));
  }
  cases.push_back(
      NetworkCase("griffin-2b-layer", kGriffinLayer, Rows::kAll, 2048, false));
  for (const auto& [name, config] :
       {std::pair("mamba-2-130m-layer", kMamba2Layer),
        std::pair("rwkv-7-layer", kRwkv7Layer),
        std::pair("gla-layer", kGlaLayer)}) {
    for (const int64_t length : {1024, 4096}) {
      cases.push_back(
          NetworkCase(name, config, Rows::kAll, length, false,
                      length == 1024 ? Error::kToDouble : Error::kNothing));
    }
  }
  cases.push_back(NetworkCase("vim-small", kVimSmall, Rows::kNone, 197, false,
                              Error::kNothing, 16));
  cases.push_back(NetworkCase("vim-small", kVimSmall, Rows::kAll, 197, false,
                              Error::kToDouble, 16));
  for (const Precision precision : {Precision::kCheckpoint, Precision::kFast}) {
    for (const Rows rows : {Rows::kNone, Rows::kAll}) {
      for (const int64_t length : {256, 1024}) {
        cases.push_back(NetworkCase("mamba-130m", kMamba130m, rows, length,
                                    length == 256, Error::kToFloat32, 1,
                                    precision));
      }
    }
  }
  for (const int64_t length : {256, 512, 1024, 2048, 4096, 8192}) {
    cases.push_back(GrowthCase({.length = length}));
  }
  for (const int64_t channels : {384, 768, 3072, 6144}) {
    cases.push_back(GrowthCase({.channels = channels}));
  }
  for (const int64_t states : {2, 4, 8, 32, 64}) {
    cases.push_back(GrowthCase({.states = states}));
  }
  for (const int64_t layers : {2, 4, 8, 16}) {
    cases.push_back(GrowthCase({.layers = layers}));
  }
  return cases;
}

}  // namespace limpid::bench
