# SPDX-License-Identifier: Apache-2.0
"""RWKV-6 in plain PyTorch: RWKV-5 with mixes and decays that depend on the
token.

Parameter names and shapes are those of the Hugging Face hub's
RWKV/rwkv-6-world-* models; the low ranks are read from the shapes, as there
is no field for them. Shared notation: `network`.
"""

import dataclasses

import torch
from torch import nn

import rwkv4
import rwkv5
from network import shift
from rwkv4 import half

CLASS = "Rwkv6ForCausalLM"
ORDER = "wkvrg"  # of the five mixes in time_maa_w1 and time_maa_w2


@dataclasses.dataclass(frozen=True)
class Config(rwkv5.Config):
    mix_rank: int = 8
    decay_rank: int = 8

    model_type = "rwkv6"
    published_class = CLASS

    @classmethod
    def from_hf(cls, config: dict, state: dict) -> "Config":
        base = rwkv5.Config.from_hf(config, state)
        prefix = "rwkv.blocks.0.attention."
        return cls(
            *dataclasses.astuple(base),
            state[prefix + "time_maa_w2"].shape[1],
            state[prefix + "time_decay_w2"].shape[0],
        )

    def describe(self) -> str:
        return (f"{super().describe()}, low ranks {self.mix_rank} (mixes) "
                f"and {self.decay_rank} (decay)")


class Attention(rwkv5.Attention):
    def add_mixes(self, config: Config):
        e, d = config.hidden_size, config.width
        for name in "x" + ORDER:
            self.register_parameter(f"time_maa_{name}", half(e))
        rank, low = config.mix_rank, config.decay_rank
        self.time_maa_w1 = nn.Parameter(torch.randn(e, 5 * rank) * 0.01)
        self.time_maa_w2 = nn.Parameter(torch.randn(5, rank, e) * 0.01)
        spread = torch.linspace(-6.0, -1.0, config.head_size)
        self.time_decay = nn.Parameter(
            spread.repeat(config.heads).view(1, 1, d))
        self.time_decay_w1 = nn.Parameter(torch.randn(e, low) * 0.01)
        self.time_decay_w2 = nn.Parameter(torch.randn(low, d) * 0.01)

    def inputs(self, n):
        change = shift(n) - n
        low = torch.tanh((n + change * self.time_maa_x) @ self.time_maa_w1)
        low = low.unflatten(-1, (5, -1))                       # [B, L, 5, r]
        extra = torch.einsum("blmr,mre->mble", low, self.time_maa_w2)
        mixed = {
            name: n + change * (getattr(self, f"time_maa_{name}") + more)
            for name, more in zip(ORDER, extra)
        }
        step = torch.tanh(mixed["w"] @ self.time_decay_w1)
        log_decay = -torch.exp(self.time_decay + step @ self.time_decay_w2)
        return (mixed["k"], mixed["v"], mixed["r"], mixed["g"],
                log_decay.unflatten(-1, (self.config.heads, -1)))


class FeedForward(rwkv4.FeedForward):
    mixes = ("time_maa_k", "time_maa_r")

    def shares(self):
        # Here the parameter says how much of the token before.
        return tuple(1 - share for share in super().shares())


class Model(rwkv4.Model):
    attention = Attention
    feed_forward = FeedForward
