# SPDX-License-Identifier: Apache-2.0
"""What GLA, RetNet, HGRN2, DeltaNet and Gated DeltaNet share.

Parameter names and shapes are those of flash-linear-attention 0.4.0. A family
gives the matrix of its recurrence, [B, H, L, L]: queries times keys, with the
decays between them, which for the short sequences here is quicker than a
loop. Projections, convolutions, norm, gate and the gated MLP are common.
Shared notation: `network`.
"""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

from network import LanguageModel, RmsNorm, causal, causal_conv, linear
from network import segments, through_conv


@dataclasses.dataclass(frozen=True)
class Config:
    """One size of key and of value heads; families say what they write."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    heads: int = 1
    key_size: int = 32
    value_size: int = 64
    mlp_width: int = 64
    taps: int = 4
    epsilon: float = 1e-5

    model_type = ""
    published_class = ""
    names = "qkv"          # of the projections of query, key and value
    norm_name = "o_norm"   # of the norm behind the recurrence
    silu = True            # behind the convolutions
    gated = True           # a gate behind the norm

    def heads_to_hf(self) -> dict:
        """Fields from which heads follow; here in GLA's and RetNet's way."""
        return {
            "num_heads": self.heads,
            "expand_k": self.heads * self.key_size / self.hidden_size,
            "expand_v": self.heads * self.value_size / self.hidden_size,
        }

    def to_hf(self) -> dict:
        """The content of config.json."""
        return {
            "architectures": [self.published_class],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            **self.heads_to_hf(),
            "intermediate_size": self.mlp_width,
            "hidden_act": "swish",
            "use_short_conv": True,
            "conv_size": self.taps,
            "norm_eps": self.epsilon,
            "fuse_norm": True,
            "attn": None,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "torch_dtype": "float32",
        }

    @classmethod
    def from_hf(cls, config: dict, state: dict) -> "Config":
        """Sizes of heads are read from the shapes of the weights."""
        layer = "model.layers.0.attn."
        keys = state[f"{layer}{cls.names[0]}_proj.weight"].shape[0]
        values = state[f"{layer}{cls.names[2]}_proj.weight"].shape[0]
        heads = cls.heads_of(config)
        return cls(
            config["vocab_size"], config["hidden_size"],
            config["num_hidden_layers"], heads, keys // heads,
            values // heads, config["intermediate_size"],
            config["conv_size"], config["norm_eps"],
        )

    @staticmethod
    def heads_of(config: dict) -> int:
        return config["num_heads"]

    def describe(self) -> str:
        layers = "1 layer" if self.num_layers == 1 else (
            f"{self.num_layers} layers")
        return (f"E={self.hidden_size}, {layers}, {self.heads} head(s) of "
                f"{self.key_size} keys and {self.value_size} values, "
                f"K={self.taps}, feed-forward {self.mlp_width}")


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        e = config.hidden_size
        keys = config.heads * config.key_size
        values = config.heads * config.value_size
        for name, width in zip(config.names, (keys, keys, values)):
            self.add_module(f"{name}_proj", linear(e, width))
            conv = nn.Conv1d(width, width, config.taps, groups=width,
                             padding=config.taps - 1, bias=False)
            self.add_module(f"{name}_conv1d", conv)
        if config.gated:
            self.g_proj = linear(e, values)
        self.add_module(config.norm_name, RmsNorm(
            self.norm_width(), config.epsilon))
        self.o_proj = linear(values, e)
        self.add_own(config)

    def norm_width(self) -> int:
        return self.config.value_size

    def add_own(self, config: Config):
        """Parameters that only this family has."""

    def matrix(self, n, query, key):
        """n: [B, L, E]; query, key: [B, L, H, N] -> [B, H, L, L], queries
        not yet scaled."""
        raise NotImplementedError

    def branch(self, name: str, n):
        """-> behind the convolution, before an activation."""
        return causal_conv(getattr(self, f"{name}_conv1d"),
                           getattr(self, f"{name}_proj")(n))

    def forward(self, n, maps: list | None = None):
        c = self.config
        split = lambda x: x.unflatten(-1, (c.heads, -1))
        active = F.silu if c.silu else lambda x: x
        query, key = (split(active(self.branch(name, n)))
                      for name in c.names[:2])
        conv = self.branch(c.names[2], n)
        rows = self.matrix(n, query, key) * c.key_size**-0.5
        o = torch.einsum("bhij,bjhp->bihp", rows, split(active(conv)))
        norm = getattr(self, c.norm_name)
        grouped = o.unflatten(-1, (-1, norm.weight.shape[0])) if (
            norm.weight.shape[0] == c.value_size) else o.flatten(2)
        scale = torch.rsqrt(
            grouped.square().mean(-1, keepdim=True) + norm.epsilon)
        factor = (scale * norm.weight).reshape(conv.shape)
        if c.gated:
            factor = factor * F.silu(self.g_proj(n))
        if maps is not None:
            full = rows.repeat_interleave(c.value_size, dim=1)
            full = full * factor.mT.unsqueeze(3)
            if c.silu:
                full = full * torch.sigmoid(conv).mT.unsqueeze(2)
            maps.append(through_conv(
                full, getattr(self, f"{c.names[2]}_conv1d")))
        return self.o_proj(o.flatten(2) * factor)


class Mlp(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        e, f = config.hidden_size, config.mlp_width
        self.gate_proj = linear(e, f)
        self.up_proj = linear(e, f)
        self.down_proj = linear(f, e, 0.5)

    def forward(self, m):
        return self.down_proj(F.silu(self.gate_proj(m)) * self.up_proj(m))


class Layer(nn.Module):
    def __init__(self, config: Config, attention: type):
        super().__init__()
        norm = lambda: RmsNorm(config.hidden_size, config.epsilon)
        self.attn_norm = norm()
        self.attn = attention(config)
        self.mlp_norm = norm()
        self.mlp = Mlp(config)


class Body(nn.Module):
    def __init__(self, config: Config, attention: type):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Layer(config, attention) for _ in range(config.num_layers))
        self.norm = RmsNorm(config.hidden_size, config.epsilon)


class Model(LanguageModel):
    attention = Attention

    def __init__(self, config: Config, dropout=0.0, token_dropout=0.0,
                 embedding_std=0.1):
        super().__init__(config, dropout, token_dropout)
        self.model = Body(config, self.attention)
        nn.init.normal_(self.model.embeddings.weight, std=embedding_std)
        self.lm_head = linear(config.hidden_size, config.vocab_size, 0.5)

    def embedding(self):
        return self.model.embeddings

    def head_weight(self):
        return self.lm_head.weight

    def blocks(self, r, maps: list | None = None):
        for layer in self.model.layers:
            r = r + self.drop(layer.attn(layer.attn_norm(r), maps))
            r = r + self.drop(layer.mlp(layer.mlp_norm(r)))
        return self.model.norm(r)


def by_key_decay(query, key, log_decay):
    """Decays of each key, [B, L, H, N]."""
    between = segments(log_decay)                           # [B, L, L, H, N]
    rows = (query.unsqueeze(2) * key.unsqueeze(1) * between).sum(-1)
    return rows.permute(0, 3, 1, 2)


def by_head_decay(query, key, log_decay):
    """Decays of each head, [B or 1, L, H]."""
    between = segments(log_decay).permute(0, 3, 1, 2)
    return torch.einsum("bihn,bjhn->bhij", query, key) * between


def normalize(x):
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def delta_rule(query, key, strength, log_decay):
    """S <- d S, then S <- S + strength key (value - S^T key)^T.

    What is written, u, solves (I + M) u = strength value, where M has what
    each key finds of the earlier ones. strength, log_decay: [B, L, H].
    """
    found = by_head_decay(key, key, log_decay)
    strength = strength.transpose(1, 2).unsqueeze(3)        # [B, H, L, 1]
    earlier = causal(key.shape[1], key.device, -1)
    one = torch.eye(key.shape[1], device=key.device, dtype=key.dtype)
    written = torch.linalg.solve_triangular(
        one + strength * found * earlier, one * strength, upper=False)
    return by_head_decay(query, key, log_decay) @ written
