# SPDX-License-Identifier: Apache-2.0
"""Mamba-1 in plain PyTorch, for training and for checks after it.

Parameter names and shapes are those of Hugging Face's MambaForCausalLM, so
that a state dict can be exported as it is. Here R is the rank of the step
projection and K the convolution width. Shared notation: `network`.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from network import (
    LanguageModel, LinearScan, RmsNorm, causal_conv, depthwise,
    inverse_softplus, through_conv,
)

CLASS = "MambaForCausalLM"


@dataclasses.dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int
    num_layers: int
    state_size: int = 16
    expand: int = 2
    conv_kernel: int = 4
    epsilon: float = 1e-5
    step_rank: int | None = None
    bias: bool = False
    tied: bool = True

    @property
    def inner(self) -> int:
        return self.expand * self.hidden_size

    @property
    def rank(self) -> int:
        return self.step_rank or math.ceil(self.hidden_size / 16)

    def to_hf(self) -> dict:
        """The content of config.json."""
        return {
            "architectures": [CLASS],
            "model_type": "mamba",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "state_size": self.state_size,
            "num_hidden_layers": self.num_layers,
            "expand": self.expand,
            "intermediate_size": self.inner,
            "conv_kernel": self.conv_kernel,
            "time_step_rank": self.rank,
            "layer_norm_epsilon": self.epsilon,
            "hidden_act": "silu",
            "use_bias": self.bias,
            "use_conv_bias": True,
            "residual_in_fp32": True,
            "tie_word_embeddings": self.tied,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "torch_dtype": "float32",
        }

    @classmethod
    def from_hf(cls, config: dict, state: dict) -> "Config":
        rank = config["time_step_rank"]
        return cls(
            config["vocab_size"], config["hidden_size"],
            config["num_hidden_layers"], config["state_size"],
            config["expand"], config["conv_kernel"],
            config["layer_norm_epsilon"], None if rank == "auto" else rank,
            config["use_bias"], config["tie_word_embeddings"],
        )

    def describe(self) -> str:
        layers = "1 layer" if self.num_layers == 1 else (
            f"{self.num_layers} layers")
        return (f"E={self.hidden_size}, {layers}, D={self.inner}, "
                f"N={self.state_size}, K={self.conv_kernel}")


class StepInit:
    """Steps start log-uniform in [0.001, 0.1]: biases before softplus."""

    @staticmethod
    def bias(count: int):
        step = torch.exp(
            torch.rand(count) * math.log(100.0) + math.log(0.001)
        )
        return inverse_softplus(step)


def selective_attention(delta, b, c, a_log, skip):
    """[B,L,D], [B,L,N] twice, [D,N], [D] -> [B, D, L, L], skip included."""
    elapsed = delta.cumsum(1).transpose(1, 2)                     # [B, D, L]
    elapsed = elapsed.unsqueeze(3) - elapsed.unsqueeze(2)
    rates = -torch.exp(a_log)
    total = 0.0
    # One state at a time: [B, D, L, L, N] would not fit for pictures.
    for n in range(b.shape[-1]):
        decay = torch.exp(elapsed * rates[:, n, None, None])
        inner = c[:, :, None, n] * b[:, None, :, n]
        total = total + (decay * inner.unsqueeze(1)).tril()
    total = total * delta.transpose(1, 2).unsqueeze(2)
    return total + torch.diag_embed(skip.unsqueeze(1).expand(
        -1, delta.shape[1]))


class Mixer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        width, inner = config.hidden_size, config.inner
        self.state = config.state_size
        self.rank = config.rank
        self.in_proj = nn.Linear(width, 2 * inner, bias=config.bias)
        self.conv1d = depthwise(inner, config.conv_kernel)
        self.x_proj = nn.Linear(inner, self.rank + 2 * self.state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        rates = torch.arange(1, self.state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(rates.log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=config.bias)
        with torch.no_grad():
            self.dt_proj.bias.copy_(StepInit.bias(inner))
            nn.init.uniform_(
                self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5
            )
            self.out_proj.weight.div_(math.sqrt(2 * config.num_layers))

    def forward(self, u, maps: list | None = None):
        x, z = self.in_proj(u).chunk(2, dim=-1)
        pre = causal_conv(self.conv1d, x)
        h = F.silu(pre)
        step, b, c = self.x_proj(h).split(
            [self.rank, self.state, self.state], dim=-1
        )
        delta = F.softplus(self.dt_proj(step))
        decay = torch.exp(delta.unsqueeze(-1) * -torch.exp(self.A_log))
        drive = (delta * h).unsqueeze(-1) * b.unsqueeze(2)
        s = LinearScan.apply(decay, drive)
        gate = F.silu(z)
        y = ((s * c.unsqueeze(2)).sum(-1) + self.D * h) * gate
        if maps is not None:
            attention = selective_attention(
                delta, b, c, self.A_log, self.D)
            attention = attention * torch.sigmoid(pre).mT.unsqueeze(2)
            attention = through_conv(attention, self.conv1d)
            maps.append(attention * gate.mT.unsqueeze(3))
        return self.out_proj(y)


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.norm = RmsNorm(config.hidden_size, config.epsilon)
        self.mixer = Mixer(config)


class Backbone(nn.Module):
    def __init__(self, config: Config, block=Block):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            block(config) for _ in range(config.num_layers)
        )
        self.norm_f = RmsNorm(config.hidden_size, config.epsilon)


class Model(LanguageModel):
    block = Block

    def __init__(self, config: Config, dropout=0.0, token_dropout=0.0,
                 embedding_std=0.02):
        super().__init__(config, dropout, token_dropout)
        self.backbone = Backbone(config, self.block)
        nn.init.normal_(self.backbone.embeddings.weight, std=embedding_std)
        if not config.tied:
            self.lm_head = nn.Linear(
                config.hidden_size, config.vocab_size, bias=False)

    def embedding(self):
        return self.backbone.embeddings

    def head_weight(self):
        return (self.backbone.embeddings if self.config.tied
                else self.lm_head).weight

    def blocks(self, r, maps: list | None = None):
        for block in self.backbone.layers:
            r = r + self.drop(block.mixer(block.norm(r), maps))
        return self.backbone.norm_f(r)
