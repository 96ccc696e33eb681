// SPDX-License-Identifier: Apache-2.0
//
// Published checkpoints load as they are published: their configurations, and
// files with their tensors' names, shapes, dtypes and shards, but without
// bytes. Files are sparse and networks are built on the meta device, so that
// fourteen billion parameters cost nothing.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/models/loader.h"

namespace limpid {
namespace {

using Json = nlohmann::json;

struct NamedShape {
  std::string name;
  std::vector<int64_t> shape;
};
using Manifest = std::vector<NamedShape>;

int64_t Numel(const NamedShape& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1},
                         std::multiplies<>());
}

// What a published model consists of.
struct Published {
  std::string name;
  Json config;
  Manifest manifest;
  std::string dtype = "F32";
  int64_t shards = 1;
  // From the model's card or from elsewhere; 0: not known.
  int64_t num_parameters = 0;
};

void AddNorm(Manifest& out, const std::string& name, int64_t size) {
  out.push_back({name + ".weight", {size}});
  out.push_back({name + ".bias", {size}});
}
void AddLinear(Manifest& out, const std::string& name, int64_t to,
               int64_t from) {
  out.push_back({name + ".weight", {to, from}});
  out.push_back({name + ".bias", {to}});
}

Published Mamba(const std::string& name, int64_t layers, int64_t hidden,
                int64_t num_parameters) {
  const int64_t inner = 2 * hidden, rank = (hidden + 15) / 16, vocabulary = 50280;
  Published model{"mamba-" + name + "-hf",
                  {{"model_type", "mamba"},
                   {"vocab_size", vocabulary},
                   {"hidden_size", hidden},
                   {"state_size", 16},
                   {"num_hidden_layers", layers},
                   {"layer_norm_epsilon", 1e-5},
                   {"expand", 2},
                   {"conv_kernel", 4},
                   {"use_bias", false},
                   {"use_conv_bias", true},
                   {"hidden_act", "silu"},
                   {"time_step_rank", rank}},
                  {},
                  "F32",
                  1,
                  num_parameters};
  Manifest& m = model.manifest;
  m.push_back({"backbone.embeddings.weight", {vocabulary, hidden}});
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = absl::StrCat("backbone.layers.", i, ".");
    const std::string mixer = layer + "mixer.";
    m.push_back({layer + "norm.weight", {hidden}});
    m.push_back({mixer + "A_log", {inner, 16}});
    m.push_back({mixer + "D", {inner}});
    m.push_back({mixer + "conv1d.weight", {inner, 1, 4}});
    m.push_back({mixer + "conv1d.bias", {inner}});
    m.push_back({mixer + "in_proj.weight", {2 * inner, hidden}});
    m.push_back({mixer + "x_proj.weight", {rank + 32, inner}});
    AddLinear(m, mixer + "dt_proj", inner, rank);
    m.push_back({mixer + "out_proj.weight", {hidden, inner}});
  }
  m.push_back({"backbone.norm_f.weight", {hidden}});
  return model;
}

Published Mamba2() {
  const int64_t hidden = 768, inner = 1536, state = 128, heads = 24,
                layers = 24, vocabulary = 50288;
  const int64_t convolved = inner + 2 * state;
  Published model{"mamba2-130m-hf",
                  {{"model_type", "mamba2"},
                   {"vocab_size", vocabulary},
                   {"hidden_size", hidden},
                   {"state_size", state},
                   {"num_heads", heads},
                   {"head_dim", 64},
                   {"n_groups", 1},
                   {"expand", 2},
                   {"num_hidden_layers", layers},
                   {"time_step_limit",
                    {0.0, {{"__float__", "Infinity"}}}},
                   {"tie_word_embeddings", true}},
                  {}};
  Manifest& m = model.manifest;
  m.push_back({"backbone.embeddings.weight", {vocabulary, hidden}});
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = absl::StrCat("backbone.layers.", i, ".");
    const std::string mixer = layer + "mixer.";
    m.push_back({layer + "norm.weight", {hidden}});
    m.push_back({mixer + "in_proj.weight",
                 {2 * inner + 2 * state + heads, hidden}});
    m.push_back({mixer + "conv1d.weight", {convolved, 1, 4}});
    m.push_back({mixer + "conv1d.bias", {convolved}});
    m.push_back({mixer + "dt_bias", {heads}});
    m.push_back({mixer + "A_log", {heads}});
    m.push_back({mixer + "D", {heads}});
    m.push_back({mixer + "norm.weight", {inner}});
    m.push_back({mixer + "out_proj.weight", {hidden, inner}});
  }
  m.push_back({"backbone.norm_f.weight", {hidden}});
  return model;
}

Published RecurrentGemma(const std::string& name, int64_t layers,
                         int64_t hidden, int64_t heads, int64_t mlp,
                         int64_t shards) {
  const int64_t vocabulary = 256000, head = hidden / heads;
  Published model{"recurrentgemma-" + name,
                  {{"model_type", "recurrent_gemma"},
                   {"vocab_size", vocabulary},
                   {"hidden_size", hidden},
                   {"intermediate_size", 2 * mlp},
                   {"lru_width", hidden},
                   {"num_hidden_layers", layers},
                   {"num_attention_heads", heads},
                   {"num_key_value_heads", 1},
                   {"attention_window_size", 2048},
                   {"conv1d_width", 4},
                   {"_block_types", {"recurrent", "recurrent", "attention"}},
                   {"logits_soft_cap", 30.0},
                   {"rms_norm_eps", 1e-6},
                   {"partial_rotary_factor", 0.5},
                   {"hidden_activation", "gelu_pytorch_tanh"}},
                  {},
                  "BF16",
                  shards};
  Manifest& m = model.manifest;
  m.push_back({"model.embed_tokens.weight", {vocabulary, hidden}});
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    const std::string block = layer + "temporal_block.";
    m.push_back({layer + "temporal_pre_norm.weight", {hidden}});
    m.push_back({layer + "channel_pre_norm.weight", {hidden}});
    AddLinear(m, layer + "mlp_block.gate_proj", mlp, hidden);
    AddLinear(m, layer + "mlp_block.up_proj", mlp, hidden);
    AddLinear(m, layer + "mlp_block.down_proj", hidden, mlp);
    if (i % 3 == 2) {
      m.push_back({block + "q_proj.weight", {hidden, hidden}});
      m.push_back({block + "k_proj.weight", {head, hidden}});
      m.push_back({block + "v_proj.weight", {head, hidden}});
      AddLinear(m, block + "o_proj", hidden, hidden);
      continue;
    }
    AddLinear(m, block + "linear_x", hidden, hidden);
    AddLinear(m, block + "linear_y", hidden, hidden);
    AddLinear(m, block + "linear_out", hidden, hidden);
    m.push_back({block + "conv_1d.weight", {hidden, 1, 4}});
    m.push_back({block + "conv_1d.bias", {hidden}});
    m.push_back({block + "rg_lru.recurrent_param", {hidden}});
    for (const char* gate : {"input_gate", "recurrent_gate"}) {
      m.push_back({absl::StrCat(block, "rg_lru.", gate, "_weight"),
                   {heads, head, head}});
      m.push_back(
          {absl::StrCat(block, "rg_lru.", gate, "_bias"), {heads, head}});
    }
  }
  m.push_back({"model.final_norm.weight", {hidden}});
  return model;
}

Published Rwkv4(const std::string& name, int64_t layers, int64_t hidden,
                int64_t shards) {
  const int64_t vocabulary = 50277;
  Published model{"rwkv-4-" + name + "-pile",
                  {{"model_type", "rwkv"},
                   {"vocab_size", vocabulary},
                   {"context_length", 1024},
                   {"hidden_size", hidden},
                   {"attention_hidden_size", hidden},
                   {"intermediate_size", 4 * hidden},
                   {"num_hidden_layers", layers},
                   {"layer_norm_epsilon", 1e-5},
                   {"rescale_every", 6},
                   {"tie_word_embeddings", false}},
                  {},
                  "BF16",
                  shards};
  Manifest& m = model.manifest;
  m.push_back({"rwkv.embeddings.weight", {vocabulary, hidden}});
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = absl::StrCat("rwkv.blocks.", i, ".");
    if (i == 0) AddNorm(m, layer + "pre_ln", hidden);
    AddNorm(m, layer + "ln1", hidden);
    AddNorm(m, layer + "ln2", hidden);
    const std::string time = layer + "attention.";
    for (const char* vector : {"time_decay", "time_first"}) {
      m.push_back({time + vector, {hidden}});
    }
    for (const char* mix :
         {"time_mix_key", "time_mix_value", "time_mix_receptance"}) {
      m.push_back({time + mix, {1, 1, hidden}});
    }
    for (const char* matrix : {"key", "value", "receptance", "output"}) {
      m.push_back({absl::StrCat(time, matrix, ".weight"), {hidden, hidden}});
    }
    const std::string channel = layer + "feed_forward.";
    m.push_back({channel + "time_mix_key", {1, 1, hidden}});
    m.push_back({channel + "time_mix_receptance", {1, 1, hidden}});
    m.push_back({channel + "key.weight", {4 * hidden, hidden}});
    m.push_back({channel + "receptance.weight", {hidden, hidden}});
    m.push_back({channel + "value.weight", {hidden, 4 * hidden}});
  }
  AddNorm(m, "rwkv.ln_out", hidden);
  m.push_back({"head.weight", {vocabulary, hidden}});
  return model;
}

Published Rwkv6World() {
  const int64_t hidden = 2048, layers = 24, vocabulary = 65536, mlp = 7168,
                rank = 32, decay_rank = 64;
  Published model{"rwkv-6-world-1b6",
                  {{"model_type", "rwkv6"},
                   {"vocab_size", vocabulary},
                   {"hidden_size", hidden},
                   {"attention_hidden_size", hidden},
                   {"num_attention_heads", 64},
                   {"head_size", 64},
                   {"head_size_divisor", 8},
                   {"intermediate_size", nullptr},
                   {"num_hidden_layers", layers},
                   {"layer_norm_epsilon", 1e-5},
                   {"rescale_every", 6}},
                  {},
                  "F16"};
  Manifest& m = model.manifest;
  m.push_back({"rwkv.embeddings.weight", {vocabulary, hidden}});
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = absl::StrCat("rwkv.blocks.", i, ".");
    if (i == 0) AddNorm(m, layer + "pre_ln", hidden);
    AddNorm(m, layer + "ln1", hidden);
    AddNorm(m, layer + "ln2", hidden);
    const std::string time = layer + "attention.";
    for (const char letter : {'x', 'w', 'k', 'v', 'r', 'g'}) {
      m.push_back({absl::StrFormat("%stime_maa_%c", time, letter),
                   {1, 1, hidden}});
    }
    m.push_back({time + "time_maa_w1", {hidden, 5 * rank}});
    m.push_back({time + "time_maa_w2", {5, rank, hidden}});
    m.push_back({time + "time_decay", {1, 1, hidden}});
    m.push_back({time + "time_decay_w1", {hidden, decay_rank}});
    m.push_back({time + "time_decay_w2", {decay_rank, hidden}});
    m.push_back({time + "time_faaaa", {hidden / 64, 64}});
    for (const char* matrix :
         {"key", "value", "receptance", "gate", "output"}) {
      m.push_back({absl::StrCat(time, matrix, ".weight"), {hidden, hidden}});
    }
    AddNorm(m, time + "ln_x", hidden);
    const std::string channel = layer + "feed_forward.";
    m.push_back({channel + "time_maa_k", {1, 1, hidden}});
    m.push_back({channel + "time_maa_r", {1, 1, hidden}});
    m.push_back({channel + "key.weight", {mlp, hidden}});
    m.push_back({channel + "receptance.weight", {hidden, hidden}});
    m.push_back({channel + "value.weight", {hidden, mlp}});
  }
  AddNorm(m, "rwkv.ln_out", hidden);
  m.push_back({"head.weight", {vocabulary, hidden}});
  return model;
}

Published Rwkv7() {
  const int64_t hidden = 768, layers = 12, vocabulary = 65536;
  Published model{"rwkv7-168M-pile",
                  {{"model_type", "rwkv7"},
                   {"vocab_size", vocabulary},
                   {"hidden_size", hidden},
                   {"head_dim", 64},
                   {"num_heads", nullptr},
                   {"hidden_ratio", 4.0},
                   {"intermediate_size", 4 * hidden},
                   {"num_hidden_layers", layers},
                   {"norm_eps", 1e-5},
                   {"norm_first", true},
                   {"norm_bias", true},
                   {"hidden_act", "sqrelu"}},
                  {},
                  "BF16"};
  Manifest& m = model.manifest;
  m.push_back({"model.embeddings.weight", {vocabulary, hidden}});
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    if (i == 0) AddNorm(m, layer + "pre_norm", hidden);
    AddNorm(m, layer + "attn_norm", hidden);
    AddNorm(m, layer + "ffn_norm", hidden);
    const std::string time = layer + "attn.";
    for (const char letter : {'r', 'w', 'k', 'v', 'a', 'g'}) {
      m.push_back({absl::StrFormat("%sx_%c", time, letter), {1, 1, hidden}});
    }
    m.push_back({time + "k_k", {hidden}});
    m.push_back({time + "k_a", {hidden}});
    m.push_back({time + "r_k", {hidden / 64, 64}});
    for (const char letter : {'r', 'k', 'v', 'o'}) {
      m.push_back({absl::StrFormat("%s%c_proj.weight", time, letter),
                   {hidden, hidden}});
    }
    for (const auto& [letter, rank] :
         std::vector<std::pair<char, int64_t>>{
             {'w', 64}, {'a', 64}, {'v', 32}, {'g', 128}}) {
      if (letter == 'v' && i == 0) continue;
      const std::string lora = absl::StrFormat("%s%c_lora.lora.", time, letter);
      m.push_back({lora + "0.weight", {rank, hidden}});
      m.push_back({lora + "2.weight", {hidden, rank}});
      if (letter != 'g') m.push_back({lora + "2.bias", {hidden}});
    }
    AddNorm(m, time + "g_norm", hidden);
    m.push_back({layer + "ffn.x_k", {hidden}});
    m.push_back({layer + "ffn.key.weight", {4 * hidden, hidden}});
    m.push_back({layer + "ffn.value.weight", {hidden, 4 * hidden}});
  }
  AddNorm(m, "model.norm", hidden);
  m.push_back({"lm_head.weight", {vocabulary, hidden}});
  return model;
}

Published Vim(const std::string& name, int64_t hidden, int64_t stride,
              int64_t num_parameters) {
  const int64_t inner = 2 * hidden, rank = (hidden + 15) / 16, depth = 24;
  const int64_t side = (224 - 16) / stride + 1;
  Published model{"vim-" + name,
                  {{"model_type", "vim"},
                   {"img_size", 224},
                   {"patch_size", 16},
                   {"stride", stride},
                   {"embed_dim", hidden},
                   {"depth", depth},
                   {"rms_norm", true},
                   {"if_abs_pos_embed", true},
                   {"if_cls_token", true},
                   {"use_middle_cls_token", true},
                   {"if_devide_out", true},
                   {"bimamba_type", "v2"},
                   {"final_pool_type", "mean"},
                   {"num_classes", 1000}},
                  {},
                  "F32",
                  1,
                  num_parameters};
  Manifest& m = model.manifest;
  m.push_back({"cls_token", {1, 1, hidden}});
  m.push_back({"pos_embed", {1, side * side + 1, hidden}});
  m.push_back({"patch_embed.proj.weight", {hidden, 3, 16, 16}});
  m.push_back({"patch_embed.proj.bias", {hidden}});
  for (int64_t i = 0; i < depth; ++i) {
    const std::string layer = absl::StrCat("layers.", i, ".");
    const std::string mixer = layer + "mixer.";
    m.push_back({layer + "norm.weight", {hidden}});
    m.push_back({mixer + "in_proj.weight", {2 * inner, hidden}});
    m.push_back({mixer + "out_proj.weight", {hidden, inner}});
    for (const std::string suffix : {"", "_b"}) {
      m.push_back({absl::StrCat(mixer, "A", suffix, "_log"), {inner, 16}});
      m.push_back({absl::StrCat(mixer, "D", suffix), {inner}});
      m.push_back({absl::StrCat(mixer, "conv1d", suffix, ".weight"),
                   {inner, 1, 4}});
      m.push_back({absl::StrCat(mixer, "conv1d", suffix, ".bias"), {inner}});
      m.push_back({absl::StrCat(mixer, "x_proj", suffix, ".weight"),
                   {rank + 32, inner}});
      AddLinear(m, absl::StrCat(mixer, "dt_proj", suffix), inner, rank);
    }
  }
  m.push_back({"norm_f.weight", {hidden}});
  AddLinear(m, "head", 1000, hidden);
  return model;
}

std::vector<Published> PublishedModels() {
  return {Mamba("130m", 24, 768, 129135360),
          Mamba("370m", 48, 1024, 371516416),
          Mamba("790m", 48, 1536, 793204224),
          Mamba("1.4b", 48, 2048, 1372178432),
          Mamba("2.8b", 64, 2560, 2768345600),
          Mamba2(),
          RecurrentGemma("2b", 26, 2560, 10, 7680, 2),
          RecurrentGemma("9b", 38, 4096, 16, 12288, 4),
          Rwkv4("169m", 12, 768, 1),
          Rwkv4("430m", 24, 1024, 1),
          Rwkv4("1b5", 24, 2048, 1),
          Rwkv4("3b", 32, 2560, 1),
          Rwkv4("7b", 32, 4096, 2),
          Rwkv4("14b", 40, 5120, 3),
          Rwkv6World(),
          Rwkv7(),
          Vim("tiny", 192, 16, 7148008),
          Vim("small", 384, 16, 25796584),
          Vim("small-stride8", 384, 8, 0)};
}

class PublishedModelsTest : public ::testing::TestWithParam<Published> {
 protected:
  PublishedModelsTest()
      : folder_(std::filesystem::temp_directory_path() /
                absl::StrCat("limpid-published-", ::getpid())) {
    std::filesystem::create_directory(folder_);
  }
  ~PublishedModelsTest() override { std::filesystem::remove_all(folder_); }

  // Files with headers and holes.
  void Write(const Published& model, const Manifest& manifest) {
    std::ofstream(folder_ / "config.json") << model.config.dump();
    const int64_t bytes = model.dtype == "F32" ? 4 : 2;
    const int64_t each =
        (static_cast<int64_t>(manifest.size()) + model.shards - 1) /
        model.shards;
    Json map = Json::object();
    for (int64_t shard = 0; shard < model.shards; ++shard) {
      const std::string name =
          model.shards == 1
              ? "model.safetensors"
              : absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1,
                                model.shards);
      Json header = Json::object();
      int64_t offset = 0;
      const int64_t end = std::min<int64_t>(manifest.size(),
                                            (shard + 1) * each);
      for (int64_t i = shard * each; i < end; ++i) {
        const int64_t size = Numel(manifest[i]) * bytes;
        header[manifest[i].name] = {{"dtype", model.dtype},
                                    {"shape", manifest[i].shape},
                                    {"data_offsets", {offset, offset + size}}};
        map[manifest[i].name] = name;
        offset += size;
      }
      const std::string text = header.dump();
      const uint64_t length = text.size();
      std::ofstream file(folder_ / name, std::ios::binary);
      file.write(reinterpret_cast<const char*>(&length), sizeof(length));
      file << text;
      file.close();
      std::filesystem::resize_file(folder_ / name,
                                   sizeof(length) + length + offset);
    }
    if (model.shards > 1) {
      std::ofstream(folder_ / "model.safetensors.index.json")
          << Json{{"weight_map", map}}.dump();
    }
  }

  absl::StatusOr<std::unique_ptr<const Network>> Load() {
    auto checkpoint = Checkpoint::Open(folder_);
    if (!checkpoint.ok()) return checkpoint.status();
    return LoadNetwork(*checkpoint, {at::kMeta, at::kFloat});
  }

  const std::filesystem::path folder_;
};

TEST_P(PublishedModelsTest, LoadsAsItIsPublished) {
  const Published& model = GetParam();
  Write(model, model.manifest);
  const auto network = Load();
  ASSERT_TRUE(network.ok()) << network.status();
  int64_t parameters = 0;
  for (const NamedShape& tensor : model.manifest) parameters += Numel(tensor);
  if (model.num_parameters > 0) {
    EXPECT_EQ(parameters, model.num_parameters);
  }
  // Every tensor was taken: all bytes are there, as float32, and only some
  // derived vectors are added.
  const int64_t resident = (*network)->info().resident_bytes;
  EXPECT_GE(resident, 4 * parameters);
  EXPECT_LE(resident, 4 * parameters * 1.01);
  std::printf("figure: %s: %zu tensors, %.1f million parameters\n",
              model.name.c_str(), model.manifest.size(), parameters / 1e6);
}

// A tensor under another name or of another shape is refused by its name.
TEST_P(PublishedModelsTest, WrongTensorsAreNamed) {
  const Published& model = GetParam();
  const size_t middle = model.manifest.size() / 2;
  const std::string name = model.manifest[middle].name;
  const auto expect_refusal = [&](const Manifest& manifest) {
    Write(model, manifest);
    const auto network = Load();
    ASSERT_FALSE(network.ok());
    EXPECT_EQ(network.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_NE(network.status().message().find(name), std::string::npos)
        << network.status();
  };
  Manifest renamed = model.manifest;
  renamed[middle].name += "_";
  expect_refusal(renamed);
  Manifest reshaped = model.manifest;
  reshaped[middle].shape.back() += 1;
  expect_refusal(reshaped);
}

INSTANTIATE_TEST_SUITE_P(
    Models, PublishedModelsTest, ::testing::ValuesIn(PublishedModels()),
    [](const ::testing::TestParamInfo<Published>& info) {
      std::string name = info.param.name;
      for (char& c : name) {
        if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
      }
      return name;
    });

}  // namespace
}  // namespace limpid
