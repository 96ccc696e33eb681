# SPDX-License-Identifier: Apache-2.0
"""Mamba-2 in plain PyTorch: the quadratic form, decays in log space.

Parameter names and shapes are those of Hugging Face's Mamba2ForCausalLM; the
gated norm works per group, as in mamba-ssm. G groups of H/G heads share B and
C. Shared notation: `network`.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

import mamba
from network import (
    RmsNorm, causal_conv, depthwise, segments, through_conv,
)

CLASS = "Mamba2ForCausalLM"


@dataclasses.dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int
    num_layers: int
    state_size: int = 32
    head_dim: int = 24
    groups: int = 1
    expand: int = 2
    conv_kernel: int = 4
    epsilon: float = 1e-5
    step_limit: tuple[float, float] = (0.0, math.inf)
    bias: bool = False
    tied: bool = True

    @property
    def inner(self) -> int:
        return self.expand * self.hidden_size

    @property
    def heads(self) -> int:
        return self.inner // self.head_dim

    def to_hf(self) -> dict:
        """The content of config.json."""
        return {
            "architectures": [CLASS],
            "model_type": "mamba2",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "state_size": self.state_size,
            "num_hidden_layers": self.num_layers,
            "num_heads": self.heads,
            "head_dim": self.head_dim,
            "n_groups": self.groups,
            "expand": self.expand,
            "conv_kernel": self.conv_kernel,
            "chunk_size": 64,
            "layer_norm_epsilon": self.epsilon,
            "hidden_act": "silu",
            "rms_norm": True,
            "time_step_limit": list(self.step_limit),
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
        return cls(
            config["vocab_size"], config["hidden_size"],
            config["num_hidden_layers"], config["state_size"],
            config["head_dim"], config["n_groups"], config["expand"],
            config["conv_kernel"], config["layer_norm_epsilon"],
            tuple(config["time_step_limit"]), config["use_bias"],
            config["tie_word_embeddings"],
        )

    def describe(self) -> str:
        layers = "1 layer" if self.num_layers == 1 else (
            f"{self.num_layers} layers")
        return (f"E={self.hidden_size}, {layers}, D={self.inner} "
                f"({self.heads} heads of {self.head_dim}), "
                f"N={self.state_size}, K={self.conv_kernel}")


class Mixer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        inner, heads = config.inner, config.heads
        mixed = inner + 2 * config.groups * config.state_size
        self.in_proj = nn.Linear(
            config.hidden_size, inner + mixed + heads, bias=config.bias)
        self.conv1d = depthwise(mixed, config.conv_kernel)
        self.dt_bias = nn.Parameter(mamba.StepInit.bias(heads))
        self.A_log = nn.Parameter(torch.arange(1.0, heads + 1).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = RmsNorm(inner, config.epsilon)
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=config.bias)
        with torch.no_grad():
            self.out_proj.weight.div_(math.sqrt(2 * config.num_layers))

    def forward(self, u, maps: list | None = None):
        c = self.config
        batch, length = u.shape[:2]
        state = c.groups * c.state_size
        z, mixed, step = self.in_proj(u).split(
            [c.inner, c.inner + 2 * state, c.heads], dim=-1)
        pre = causal_conv(self.conv1d, mixed)
        h, b, q = F.silu(pre).split([c.inner, state, state], dim=-1)
        delta = F.softplus(step + self.dt_bias).clamp(*c.step_limit)
        b = b.view(batch, length, c.groups, c.state_size)
        q = q.view(batch, length, c.groups, c.state_size)
        inner = torch.einsum("bign,bjgn->bijg", q, b)
        inner = inner.repeat_interleave(c.heads // c.groups, dim=3)
        decay = segments(delta * -torch.exp(self.A_log))       # [B, L, L, H]
        state_map = inner * decay * delta.unsqueeze(1)
        parts = h.view(batch, length, c.heads, c.head_dim)
        y = torch.einsum("bijh,bjhp->bihp", state_map, parts)
        y = y + self.D.unsqueeze(1) * parts
        gate = F.silu(z)
        t = (y.flatten(2) * gate).view(batch, length, c.groups, -1)
        scale = torch.rsqrt(
            t.square().mean(-1, keepdim=True) + c.epsilon).expand_as(t)
        out = self.norm.weight * (t * scale).flatten(2)
        if maps is not None:
            skip = torch.diag_embed(self.D.unsqueeze(1).expand(-1, length))
            attention = state_map.permute(0, 3, 1, 2) + skip
            attention = attention.repeat_interleave(c.head_dim, dim=1)
            attention = attention * torch.sigmoid(
                pre[..., :c.inner]).mT.unsqueeze(2)
            front = nn.Conv1d(c.inner, c.inner, c.conv_kernel, groups=c.inner)
            front.weight = nn.Parameter(self.conv1d.weight[:c.inner])
            attention = through_conv(attention, front)
            rows = self.norm.weight * gate * scale.flatten(2)
            maps.append(attention * rows.mT.unsqueeze(3))
        return self.out_proj(out)


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.norm = RmsNorm(config.hidden_size, config.epsilon)
        self.mixer = Mixer(config)


class Model(mamba.Model):
    block = Block
