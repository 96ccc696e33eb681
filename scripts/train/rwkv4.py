# SPDX-License-Identifier: Apache-2.0
"""RWKV-4 in plain PyTorch: softmax form of the recurrence, and the frame that
RWKV-5 and RWKV-6 share with it.

Parameter names and shapes are those of Hugging Face's RwkvForCausalLM.
Shared notation: `network`.
"""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

from network import LanguageModel, causal, linear, shift

CLASS = "RwkvForCausalLM"


@dataclasses.dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int
    num_layers: int
    attention_width: int = 0    # 0: hidden_size
    mlp_width: int = 64
    epsilon: float = 1e-5
    fastest: float = 0.0        # largest time_decay at the start of training

    @property
    def width(self) -> int:
        return self.attention_width or self.hidden_size

    def to_hf(self) -> dict:
        """The content of config.json."""
        return {
            "architectures": [CLASS],
            "model_type": "rwkv",
            "vocab_size": self.vocab_size,
            "context_length": 1024,
            "hidden_size": self.hidden_size,
            "attention_hidden_size": self.width,
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
        return cls(
            config["vocab_size"], config["hidden_size"],
            config["num_hidden_layers"], config["attention_hidden_size"] or 0,
            config["intermediate_size"] or 4 * config["hidden_size"],
            config["layer_norm_epsilon"],
        )

    def describe(self) -> str:
        layers = "1 layer" if self.num_layers == 1 else (
            f"{self.num_layers} layers")
        return (f"E={self.hidden_size}, {layers}, D={self.width}, "
                f"feed-forward {self.mlp_width}")


def mix(x, before, share):
    return share * x + (1 - share) * before


def half(width: int) -> nn.Parameter:
    return nn.Parameter(torch.full((1, 1, width), 0.5))


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        e, d = config.hidden_size, config.width
        # Channels forget at rates spread evenly on the logarithm.
        slowest = min(-6.0, config.fastest - 2)
        self.time_decay = nn.Parameter(
            torch.linspace(slowest, config.fastest, d))
        self.openness = None  # mean of the gate in the last training pass
        self.time_first = nn.Parameter(torch.zeros(d))
        self.time_mix_key = half(e)
        self.time_mix_value = half(e)
        self.time_mix_receptance = half(e)
        self.key = linear(e, d)
        self.value = linear(e, d)
        self.receptance = linear(e, d)
        self.output = linear(d, e)

    def forward(self, n, maps: list | None = None):
        before = shift(n)
        k = self.key(mix(n, before, self.time_mix_key))
        v = self.value(mix(n, before, self.time_mix_value))
        gate = torch.sigmoid(
            self.receptance(mix(n, before, self.time_mix_receptance)))
        if self.training:
            self.openness = gate.mean()
        length = n.shape[1]
        position = torch.arange(length, device=n.device)
        distance = (position[:, None] - position - 1).clamp(min=0)
        fade = distance.unsqueeze(-1) * -torch.exp(self.time_decay)
        logits = k.unsqueeze(1) + fade                         # [B, L, L, D]
        same = torch.eye(length, dtype=torch.bool, device=n.device)
        logits = torch.where(
            same.unsqueeze(-1), (k + self.time_first).unsqueeze(1), logits)
        seen = causal(length, n.device).unsqueeze(-1)
        rows = logits.masked_fill(~seen, -torch.inf).softmax(2)
        y = gate * torch.einsum("bijd,bjd->bid", rows, v)
        if maps is not None:
            maps.append((gate.unsqueeze(2) * rows).permute(0, 3, 1, 2))
        return self.output(y)


class FeedForward(nn.Module):
    """`mixes` names the two token-shift parameters."""

    mixes = ("time_mix_key", "time_mix_receptance")

    def __init__(self, config: Config):
        super().__init__()
        e, f = config.hidden_size, config.mlp_width
        for name in self.mixes:
            self.register_parameter(name, half(e))
        self.key = linear(e, f)
        self.receptance = linear(e, e)
        self.value = linear(f, e, 0.5)

    def shares(self):
        """How much of the token itself: for key and for receptance."""
        return tuple(getattr(self, name) for name in self.mixes)

    def forward(self, m):
        before = shift(m)
        for_key, for_gate = self.shares()
        h = torch.relu(self.key(mix(m, before, for_key))).square()
        gate = torch.sigmoid(self.receptance(mix(m, before, for_gate)))
        return gate * self.value(h)


class Block(nn.Module):
    def __init__(self, config: Config, index: int, attention, feed_forward):
        super().__init__()
        norm = lambda: nn.LayerNorm(config.hidden_size, eps=config.epsilon)
        if index == 0:
            self.pre_ln = norm()
        self.ln1 = norm()
        self.ln2 = norm()
        self.attention = attention(config)
        self.feed_forward = feed_forward(config)


class Body(nn.Module):
    def __init__(self, config: Config, attention, feed_forward):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(
            Block(config, index, attention, feed_forward)
            for index in range(config.num_layers)
        )
        self.ln_out = nn.LayerNorm(config.hidden_size, eps=1e-5)


class Model(LanguageModel):
    attention = Attention
    feed_forward = FeedForward

    def __init__(self, config: Config, dropout=0.0, token_dropout=0.0,
                 embedding_std=0.1):
        super().__init__(config, dropout, token_dropout)
        self.rwkv = Body(config, self.attention, self.feed_forward)
        nn.init.normal_(self.rwkv.embeddings.weight, std=embedding_std)
        self.head = linear(config.hidden_size, config.vocab_size, 0.5)

    def embedding(self):
        return self.rwkv.embeddings

    def head_weight(self):
        return self.head.weight

    def blocks(self, r, maps: list | None = None):
        for index, block in enumerate(self.rwkv.blocks):
            if index == 0:
                r = block.pre_ln(r)
            r = r + self.drop(block.attention(block.ln1(r), maps))
            r = r + self.drop(block.feed_forward(block.ln2(r)))
        return self.rwkv.ln_out(r)

