# SPDX-License-Identifier: Apache-2.0
"""Vision Mamba (Vim) in plain PyTorch: two directions, class token in the
middle.

Parameter names and shapes are those of hustvl's VisionMamba with
`bimamba_type` "v2"; its checkpoints come without a config, so ours uses the
constructor's names. Shared notation: `network`; C colours, P patches.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from mamba import StepInit, selective_attention
from network import LinearScan, RmsNorm, causal_conv, depthwise, through_conv


@dataclasses.dataclass(frozen=True)
class Config:
    num_classes: int
    img_size: int = 64
    patch_size: int = 8
    embed_dim: int = 96
    depth: int = 5
    d_state: int = 8
    expand: int = 2
    d_conv: int = 4
    step_rank: int = 0          # 0: ceil(embed_dim / 16)
    divide_out: bool = True
    epsilon: float = 1e-5

    @property
    def inner(self) -> int:
        return self.expand * self.embed_dim

    @property
    def rank(self) -> int:
        return self.step_rank or math.ceil(self.embed_dim / 16)

    @property
    def grid(self) -> int:
        return self.img_size // self.patch_size

    @property
    def middle(self) -> int:
        """Where the class token stands."""
        return self.grid**2 // 2

    def to_hf(self) -> dict:
        """The content of config.json, but for the class names."""
        return {
            "model_type": "vim",
            "img_size": [self.img_size, self.img_size],
            "patch_size": self.patch_size,
            "stride": self.patch_size,
            "channels": 3,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "d_state": self.d_state,
            "num_classes": self.num_classes,
            "norm_epsilon": self.epsilon,
            "rms_norm": True,
            "residual_in_fp32": True,
            "if_abs_pos_embed": True,
            "if_cls_token": True,
            "use_middle_cls_token": True,
            "if_divide_out": self.divide_out,
            "bimamba_type": "v2",
            "final_pool_type": "mean",
            "ssm_cfg": {"d_conv": self.d_conv, "expand": self.expand,
                        "dt_rank": self.rank},
            "torch_dtype": "float32",
        }

    @classmethod
    def from_hf(cls, config: dict, state: dict) -> "Config":
        inner = config["ssm_cfg"]
        rank = inner["dt_rank"]
        return cls(
            config["num_classes"], config["img_size"][0],
            config["patch_size"], config["embed_dim"], config["depth"],
            config["d_state"], inner["expand"], inner["d_conv"],
            0 if rank == "auto" else rank, config["if_divide_out"],
            config["norm_epsilon"],
        )


class Mixer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        width, inner, state = config.embed_dim, config.inner, config.d_state
        rank = config.rank
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, width, bias=False)
        rates = torch.arange(1, state + 1, dtype=torch.float32).log()
        for suffix in ("", "_b"):
            step = nn.Linear(rank, inner)
            with torch.no_grad():
                step.bias.copy_(StepInit.bias(inner))
                nn.init.uniform_(step.weight, -(rank**-0.5), rank**-0.5)
            self.add_module(f"conv1d{suffix}", depthwise(inner, config.d_conv))
            self.add_module(f"x_proj{suffix}", nn.Linear(
                inner, rank + 2 * state, bias=False))
            self.add_module(f"dt_proj{suffix}", step)
            self.register_parameter(f"A{suffix}_log", nn.Parameter(
                rates.repeat(inner, 1)))
            self.register_parameter(f"D{suffix}", nn.Parameter(
                torch.ones(inner)))
        with torch.no_grad():
            self.out_proj.weight.div_(math.sqrt(2 * config.depth))

    def direction(self, x, suffix: str):
        """What one direction makes of x, in its own time."""
        get = lambda name: getattr(self, name)
        pre = causal_conv(get(f"conv1d{suffix}"), x)
        h = F.silu(pre)
        state = self.config.d_state
        step, b, c = get(f"x_proj{suffix}")(h).split(
            [self.config.rank, state, state], dim=-1)
        delta = F.softplus(get(f"dt_proj{suffix}")(step))
        rates = -torch.exp(get(f"A{suffix}_log"))
        return pre, h, delta, b, c, torch.exp(delta.unsqueeze(-1) * rates)

    def forward(self, u, maps: list | None = None):
        x, z = self.in_proj(u).chunk(2, dim=-1)
        gate = F.silu(z) * (0.5 if self.config.divide_out else 1.0)
        sides = [self.direction(x, ""), self.direction(x.flip(1), "_b")]
        _, h, delta, b, c, decay = (
            torch.cat(pair) for pair in zip(*sides))
        # Both directions in one scan.
        s = LinearScan.apply(decay, (delta * h).unsqueeze(-1) * b.unsqueeze(2))
        read = (s * c.unsqueeze(2)).sum(-1)
        ahead, back = read.chunk(2)
        y = (ahead + self.D * sides[0][1]
             + (back + self.D_b * sides[1][1]).flip(1)) * gate
        if maps is not None:
            maps.append(self.attention(sides, gate))
        return self.out_proj(y)

    def attention(self, sides, gate):
        total = 0.0
        for suffix, (pre, _, delta, b, c, _) in zip(("", "_b"), sides):
            part = selective_attention(
                delta, b, c, getattr(self, f"A{suffix}_log"),
                getattr(self, f"D{suffix}"))
            part = part * torch.sigmoid(pre).mT.unsqueeze(2)
            part = through_conv(part, getattr(self, f"conv1d{suffix}"))
            total = total + (part.flip(2, 3) if suffix else part)
        return total * gate.mT.unsqueeze(3)


class Layer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.norm = RmsNorm(config.embed_dim, config.epsilon)
        self.mixer = Mixer(config)


class Patches(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.proj = nn.Conv2d(3, config.embed_dim, config.patch_size,
                              stride=config.patch_size)

    def forward(self, pixels):
        return self.proj(pixels).flatten(2).mT


class Model(nn.Module):
    """Normalised pixels [B, 3, H, W] -> logits. Dropout only in training."""

    def __init__(self, config: Config, dropout=0.0):
        super().__init__()
        self.config = config
        self.dropout = dropout
        e = config.embed_dim
        self.patch_embed = Patches(config)
        self.cls_token = nn.Parameter(torch.randn(1, 1, e) * 0.02)
        self.pos_embed = nn.Parameter(
            torch.randn(1, config.grid**2 + 1, e) * 0.02)
        self.layers = nn.ModuleList(
            Layer(config) for _ in range(config.depth))
        self.norm_f = RmsNorm(e, config.epsilon)
        self.head = nn.Linear(e, config.num_classes)

    def embed(self, pixels):
        """[B, P + 1, E]: patches, the class token among them, positions."""
        tokens = self.patch_embed(pixels)
        middle = self.config.middle
        token = self.cls_token.expand(len(tokens), -1, -1)
        tokens = torch.cat(
            [tokens[:, :middle], token, tokens[:, middle:]], 1)
        return tokens + self.pos_embed

    def hidden(self, e, maps: list | None = None):
        """-> [B, E], the class token after the last norm."""
        r = e
        for layer in self.layers:
            out = layer.mixer(layer.norm(r), maps)
            r = r + F.dropout(out, self.dropout, self.training)
        return self.norm_f(r[:, self.config.middle])

    def forward(self, pixels):
        return self.head(self.hidden(self.embed(pixels)))
