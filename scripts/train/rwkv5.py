# SPDX-License-Identifier: Apache-2.0
"""RWKV-5.2 in plain PyTorch: the quadratic form, decays in log space.

Parameter names and shapes are those of the Hugging Face hub's
RWKV/rwkv-5-world-* models. The head count is width / head size, whatever
`num_attention_heads` says. Shared notation: `network`.
"""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

import rwkv4
from network import linear, segments, shift
from rwkv4 import half, mix

CLASS = "Rwkv5ForCausalLM"


@dataclasses.dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int
    num_layers: int
    attention_width: int = 0    # 0: hidden_size
    head_size: int = 32
    mlp_width: int = 64
    epsilon: float = 1e-5

    model_type = "rwkv5"
    published_class = CLASS

    @property
    def width(self) -> int:
        return self.attention_width or self.hidden_size

    @property
    def heads(self) -> int:
        return self.width // self.head_size

    def to_hf(self) -> dict:
        """The content of config.json."""
        return {
            "architectures": [self.published_class],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "attention_hidden_size": self.width,
            "num_attention_heads": self.heads,
            "head_size": self.head_size,
            "head_size_divisor": 8,
            "intermediate_size": self.mlp_width,
            "num_hidden_layers": self.num_layers,
            "layer_norm_epsilon": self.epsilon,
            "rescale_every": 0,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "torch_dtype": "float32",
        }

    @classmethod
    def from_hf(cls, config: dict, state: dict) -> "Config":
        """Where the file names no feed-forward width, the weights do."""
        width = config["intermediate_size"]
        if width is None:
            name = "rwkv.blocks.0.feed_forward.key.weight"
            width = state[name].shape[0]
        return cls(
            config["vocab_size"], config["hidden_size"],
            config["num_hidden_layers"], config["attention_hidden_size"],
            config["head_size"], width, config["layer_norm_epsilon"],
        )

    def describe(self) -> str:
        layers = "1 layer" if self.num_layers == 1 else (
            f"{self.num_layers} layers")
        return (f"E={self.hidden_size}, {layers}, D={self.width} "
                f"({self.heads} head(s) of {self.head_size}), "
                f"feed-forward {self.mlp_width}")


class Attention(nn.Module):
    """What RWKV-5 and 6 have in common is here; `inputs` and the shape of
    the decay differ."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        e, d = config.hidden_size, config.width
        self.add_mixes(config)
        self.time_faaaa = nn.Parameter(
            torch.zeros(config.heads, config.head_size))
        self.receptance = linear(e, d)
        self.key = linear(e, d)
        self.value = linear(e, d)
        self.gate = linear(e, d)
        self.output = linear(d, e)
        self.ln_x = nn.GroupNorm(config.heads, d, eps=64e-5)

    def add_mixes(self, config: Config):
        for name in ("key", "value", "receptance", "gate"):
            self.register_parameter(
                f"time_mix_{name}", half(config.hidden_size))
        spread = torch.linspace(-6.0, -1.0, config.head_size)
        self.time_decay = nn.Parameter(spread.repeat(config.heads, 1))

    def inputs(self, n):
        """Mixed inputs of key, value, receptance, gate; log decay."""
        before = shift(n)
        mixed = [
            mix(n, before, getattr(self, f"time_mix_{name}"))
            for name in ("key", "value", "receptance", "gate")
        ]
        # Constant in time, the same for all sequences: B = 1 here.
        log_decay = -torch.exp(self.time_decay)
        return *mixed, log_decay.expand(1, n.shape[1], -1, -1)

    def forward(self, n, maps: list | None = None):
        c = self.config
        for_k, for_v, for_r, for_g, log_decay = self.inputs(n)
        split = lambda x: x.unflatten(-1, (c.heads, c.head_size))
        k, v = split(self.key(for_k)), split(self.value(for_v))
        r = split(self.receptance(for_r))
        gate = F.silu(self.gate(for_g))
        between = segments(log_decay, diagonal=-1)          # [B, L, L, H, S]
        rows = (r.unsqueeze(2) * k.unsqueeze(1) * between).sum(-1)
        first = (r * self.time_faaaa * k).sum(-1)                 # [B, L, H]
        rows = rows.permute(0, 3, 1, 2) + torch.diag_embed(first.mT)
        o = torch.einsum("bhij,bjhs->bihs", rows, v)
        normed = self.ln_x(o.flatten(0, 1).flatten(1)).view_as(gate)
        if maps is not None:
            scale = torch.rsqrt(
                o.var(-1, unbiased=False, keepdim=True) + self.ln_x.eps)
            factor = gate * self.ln_x.weight * scale.expand_as(o).flatten(2)
            full = rows.repeat_interleave(c.head_size, dim=1)
            maps.append(full * factor.mT.unsqueeze(3))
        return self.output(normed * gate)


class Model(rwkv4.Model):
    attention = Attention
