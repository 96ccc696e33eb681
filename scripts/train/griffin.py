# SPDX-License-Identifier: Apache-2.0
"""Griffin (RecurrentGemma) in plain PyTorch: the quadratic form.

Parameter names and shapes are those of Hugging Face's
RecurrentGemmaForCausalLM. A pattern of block types is repeated over the
layers: "r" is a recurrent block (RG-LRU), "a" local attention. A query sees
itself and `window` earlier tokens. Shared notation: `network`.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from network import (
    LanguageModel, RmsNorm, causal, causal_conv, depthwise, inverse_softplus,
    segments, through_conv,
)

CLASS = "RecurrentGemmaForCausalLM"
NAMES = {"r": "recurrent", "a": "attention"}


@dataclasses.dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int
    num_layers: int
    pattern: str = "r"
    lru_width: int = 0          # 0: hidden_size
    mlp_width: int = 64         # half of what config.json says
    heads: int = 4              # also the blocks of the RG-LRU's gates
    kv_heads: int = 1
    window: int = 128
    conv_kernel: int = 4
    rope_theta: float = 10000.0
    rotary: float = 0.5
    cap: float = 30.0
    epsilon: float = 1e-6

    @property
    def width(self) -> int:
        return self.lru_width or self.hidden_size

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.heads

    def to_hf(self) -> dict:
        """The content of config.json."""
        return {
            "architectures": [CLASS],
            "model_type": "recurrent_gemma",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "lru_width": self.width,
            "intermediate_size": 2 * self.mlp_width,
            "num_hidden_layers": self.num_layers,
            "block_types": [NAMES[letter] for letter in self.pattern],
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "attention_window_size": self.window,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "conv1d_width": self.conv_kernel,
            "rope_theta": self.rope_theta,
            "partial_rotary_factor": self.rotary,
            "logits_soft_cap": self.cap,
            "rms_norm_eps": self.epsilon,
            "hidden_activation": "gelu_pytorch_tanh",
            "w_init_variance_scale": 0.01,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "torch_dtype": "float32",
        }

    @classmethod
    def from_hf(cls, config: dict, state: dict) -> "Config":
        letters = {name: letter for letter, name in NAMES.items()}
        return cls(
            config["vocab_size"], config["hidden_size"],
            config["num_hidden_layers"],
            "".join(letters[name] for name in config["block_types"]),
            config["lru_width"] or 0, config["intermediate_size"] // 2,
            config["num_attention_heads"], config["num_key_value_heads"],
            config["attention_window_size"], config["conv1d_width"],
            config["rope_theta"], config["partial_rotary_factor"],
            config["logits_soft_cap"], config["rms_norm_eps"],
        )

    def describe(self) -> str:
        kinds = [NAMES[self.pattern[i % len(self.pattern)]]
                 for i in range(self.num_layers)]
        text = (f"E={self.hidden_size}, layers: {', '.join(kinds)}, "
                f"D={self.width}, gates in {self.heads} blocks, "
                f"K={self.conv_kernel}, MLP {self.mlp_width}")
        if "attention" in kinds:
            text += (f", {self.heads} query heads of {self.head_dim} on "
                     f"{self.kv_heads} key-value head(s), "
                     f"window {self.window}")
        return text


class Gates(nn.Module):
    """The RG-LRU's parameters and its decay; blocks as in the layout."""

    def __init__(self, width: int, blocks: int):
        super().__init__()
        self.blocks = blocks
        size = width // blocks
        # a = exp(-8 softplus(param)) starts with a^2 uniform in this range.
        square = torch.empty(width).uniform_(0.9**2, 0.999**2)
        self.recurrent_param = nn.Parameter(
            inverse_softplus(-0.5 * square.log() / 4))
        for name in ("input_gate", "recurrent_gate"):
            weight = torch.randn(blocks, size, size) * size**-0.5
            self.register_parameter(f"{name}_weight", nn.Parameter(weight))
            self.register_parameter(
                f"{name}_bias", nn.Parameter(torch.zeros(blocks, size)))

    def gate(self, x, weight, bias):
        parts = x.unflatten(-1, (self.blocks, -1))
        out = torch.einsum("blhi,hij->blhj", parts, weight) + bias
        return torch.sigmoid(out).flatten(2)

    def forward(self, x):
        """-> log a and the factor of the input, both [B, L, W]."""
        write = self.gate(x, self.input_gate_weight, self.input_gate_bias)
        forget = self.gate(
            x, self.recurrent_gate_weight, self.recurrent_gate_bias)
        log_a = -8.0 * forget * F.softplus(self.recurrent_param)
        # The first token is written in full: there is nothing to forget.
        square = -torch.expm1(2 * log_a[:, 1:])
        norm = F.pad(torch.sqrt(square.clamp(min=1e-12)), (0, 0, 1, 0),
                     value=1.0)
        return log_a, write * norm


class Recurrent(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        e, w = config.hidden_size, config.width
        self.linear_x = nn.Linear(e, w)
        self.linear_y = nn.Linear(e, w)
        self.linear_out = nn.Linear(w, e)
        self.conv_1d = depthwise(w, config.conv_kernel)
        self.rg_lru = Gates(w, config.heads)
        for layer in (self.linear_x, self.linear_y, self.linear_out):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, n, maps: list | None = None):
        gate = F.gelu(self.linear_y(n), approximate="tanh")
        x = self.linear_x(n)
        mixed = causal_conv(self.conv_1d, x)
        log_a, factor = self.rg_lru(mixed)
        state_map = segments(log_a) * factor.unsqueeze(1)      # [B, L, L, W]
        h = torch.einsum("bijw,bjw->biw", state_map, mixed)
        if maps is not None:
            attention = through_conv(state_map.permute(0, 3, 1, 2),
                                     self.conv_1d)
            maps.append(attention * gate.mT.unsqueeze(3))
        return self.linear_out(h * gate)


class LocalAttention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        e, size = config.hidden_size, config.head_dim
        inner = config.heads * size
        self.q_proj = nn.Linear(e, inner, bias=False)
        self.k_proj = nn.Linear(e, config.kv_heads * size, bias=False)
        self.v_proj = nn.Linear(e, config.kv_heads * size, bias=False)
        self.o_proj = nn.Linear(inner, e)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(self.o_proj.bias)

    def rotate(self, x):
        """[B, L, H, hd]: rotary on the first part of each head."""
        size = int(self.config.rotary * x.shape[-1])
        front, rest = x[..., :size], x[..., size:]
        power = torch.arange(0, size, 2, device=x.device, dtype=x.dtype) / size
        position = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        angle = position[:, None] * self.config.rope_theta**-power
        angle = torch.cat([angle, angle], -1).unsqueeze(1)       # [L, 1, ro]
        left, right = front.chunk(2, dim=-1)
        turned = torch.cat([-right, left], -1)
        front = front * angle.cos() + turned * angle.sin()
        return torch.cat([front, rest], -1)

    def forward(self, n, maps: list | None = None):
        c = self.config
        length = n.shape[1]
        q = self.rotate(self.q_proj(n).unflatten(-1, (c.heads, -1)))
        k = self.rotate(self.k_proj(n).unflatten(-1, (c.kv_heads, -1)))
        v = self.v_proj(n).unflatten(-1, (c.kv_heads, -1))
        shared = c.heads // c.kv_heads
        k = k.repeat_interleave(shared, dim=2)
        v = v.repeat_interleave(shared, dim=2)
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * c.head_dim**-0.5
        seen = causal(length, n.device) & ~causal(
            length, n.device, -c.window - 1)
        rows = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        out = torch.einsum("bhij,bjhd->bihd", rows, v).flatten(2)
        if maps is not None:
            maps.append(rows.repeat_interleave(c.head_dim, dim=1))
        return self.o_proj(out)


class Mlp(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        e, f = config.hidden_size, config.mlp_width
        self.gate_proj = nn.Linear(e, f)
        self.up_proj = nn.Linear(e, f)
        self.down_proj = nn.Linear(f, e)
        for layer in (self.gate_proj, self.up_proj, self.down_proj):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        gate = F.gelu(self.gate_proj(x), approximate="tanh")
        return self.down_proj(gate * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Config, kind: str):
        super().__init__()
        norm = lambda: RmsNorm(config.hidden_size, config.epsilon, offset=1.0)
        self.temporal_pre_norm = norm()
        self.temporal_block = (
            Recurrent if kind == "r" else LocalAttention)(config)
        self.channel_pre_norm = norm()
        self.mlp_block = Mlp(config)
        with torch.no_grad():
            block = self.temporal_block
            last = block.linear_out if kind == "r" else block.o_proj
            for layer in (last, self.mlp_block.down_proj):
                layer.weight.div_(math.sqrt(2 * config.num_layers))


class Body(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.embed_tokens = nn.Embedding(
            config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Layer(config, config.pattern[i % len(config.pattern)])
            for i in range(config.num_layers)
        )
        self.final_norm = RmsNorm(
            config.hidden_size, config.epsilon, offset=1.0)


class Model(LanguageModel):
    def __init__(self, config: Config, dropout=0.0, token_dropout=0.0,
                 embedding_std=0.1):
        super().__init__(config, dropout, token_dropout)
        self.model = Body(config)
        nn.init.normal_(self.model.embed_tokens.weight, std=embedding_std)
        # The published code keeps this factor in bfloat16.
        root = torch.tensor(config.hidden_size**0.5, dtype=torch.bfloat16)
        self.scale = float(root)

    def embedding(self):
        return self.model.embed_tokens

    def head_weight(self):
        return self.model.embed_tokens.weight

    def embed(self, ids):
        """Rows after the factor sqrt(E)."""
        return super().embed(ids) * self.scale

    def blocks(self, r, maps: list | None = None):
        for layer in self.model.layers:
            r = r + self.drop(
                layer.temporal_block(layer.temporal_pre_norm(r), maps))
            r = r + self.drop(layer.mlp_block(layer.channel_pre_norm(r)))
        return self.model.final_norm(r)

    def logits(self, hidden):
        cap = self.config.cap
        return cap * torch.tanh(self.uncapped(hidden) / cap)
