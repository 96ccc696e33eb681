# SPDX-License-Identifier: Apache-2.0
"""RWKV-7 in plain PyTorch: a loop over the tokens.

Parameter names and shapes are those of flash-linear-attention's
RWKV7ForCausalLM. Its state is no diagonal recurrence, so there is no form in
log space. Shared notation: `network`; S is the head width.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from network import LanguageModel, linear, shift

CLASS = "RWKV7ForCausalLM"


@dataclasses.dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int
    num_layers: int
    head_dim: int = 64
    mlp_width: int = 64
    decay_rank: int = 8
    a_rank: int = 8
    v_rank: int = 8
    gate_rank: int = 16
    epsilon: float = 1e-5

    @property
    def heads(self) -> int:
        return self.hidden_size // self.head_dim

    def to_hf(self) -> dict:
        """The content of config.json."""
        return {
            "architectures": [CLASS],
            "model_type": "rwkv7",
            "attn_mode": "chunk",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "head_dim": self.head_dim,
            "num_heads": self.heads,
            "num_hidden_layers": self.num_layers,
            "hidden_ratio": self.mlp_width / self.hidden_size,
            "intermediate_size": self.mlp_width,
            "hidden_act": "sqrelu",
            "decay_low_rank_dim": self.decay_rank,
            "a_low_rank_dim": self.a_rank,
            "v_low_rank_dim": self.v_rank,
            "gate_low_rank_dim": self.gate_rank,
            "norm_eps": self.epsilon,
            "norm_first": True,
            "norm_bias": True,
            "fuse_norm": False,
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
            config["num_hidden_layers"], config["head_dim"],
            config["intermediate_size"], config["decay_low_rank_dim"],
            config["a_low_rank_dim"], config["v_low_rank_dim"],
            config["gate_low_rank_dim"], config["norm_eps"],
        )

    def describe(self) -> str:
        layers = "1 layer" if self.num_layers == 1 else (
            f"{self.num_layers} layers")
        return (f"E={self.hidden_size}, {layers}, {self.heads} head(s) of "
                f"{self.head_dim}, feed-forward {self.mlp_width}, low ranks "
                f"{self.decay_rank} (decay), {self.a_rank} (a), "
                f"{self.gate_rank} (gate)")


class LowRank(nn.Module):
    """Published as `lora.0`, `lora.2`; the middle has no parameters."""

    def __init__(self, width: int, rank: int, middle, bias=None):
        super().__init__()
        self.lora = nn.Sequential(
            linear(width, rank), middle,
            nn.Linear(rank, width, bias=bias is not None),
        )
        nn.init.normal_(self.lora[2].weight, std=0.1 * rank**-0.5)
        if bias is not None:
            with torch.no_grad():
                self.lora[2].bias.copy_(bias)

    def forward(self, x):
        return self.lora(x)


class Attention(nn.Module):
    def __init__(self, config: Config, index: int):
        super().__init__()
        self.config = config
        e = config.hidden_size
        for name in "rwkvag":
            self.register_parameter(
                f"x_{name}", nn.Parameter(torch.full((1, 1, e), 0.5)))
        self.k_k = nn.Parameter(torch.full((e,), 0.85))
        self.k_a = nn.Parameter(torch.ones(e))
        self.r_k = nn.Parameter(torch.zeros(config.heads, config.head_dim))
        self.r_proj = linear(e, e)
        self.k_proj = linear(e, e)
        self.v_proj = linear(e, e)
        self.o_proj = linear(e, e)
        self.w_lora = LowRank(e, config.decay_rank, nn.Tanh(),
                              torch.linspace(-7.0, -3.0, e))
        self.a_lora = LowRank(e, config.a_rank, nn.Identity(), torch.zeros(e))
        self.g_lora = LowRank(e, config.gate_rank, nn.Sigmoid())
        nn.init.normal_(self.g_lora.lora[2].weight,
                        std=config.gate_rank**-0.5)
        if index > 0:
            self.v_lora = LowRank(
                e, config.v_rank, nn.Identity(), torch.zeros(e))
        self.g_norm = nn.GroupNorm(
            config.heads, e, eps=config.head_dim * config.epsilon)

    def forward(self, n, v_first, maps: list | None = None):
        """-> output, the values of layer 0."""
        split = lambda x: x.unflatten(-1, (self.config.heads, -1))
        change = shift(n) - n
        at = {name: n + change * getattr(self, f"x_{name}")
              for name in "rwkvag"}
        r, k, v = (self.r_proj(at["r"]), self.k_proj(at["k"]),
                   self.v_proj(at["v"]))
        w = torch.exp(-math.exp(-0.5) * torch.sigmoid(self.w_lora(at["w"])))
        if v_first is None:
            v_first = v
        else:
            v = v + (v_first - v) * torch.sigmoid(self.v_lora(at["v"]))
        a = torch.sigmoid(self.a_lora(at["a"]))
        gate = self.g_lora(at["g"])
        removed = F.normalize(split(k * self.k_k), dim=-1, eps=1e-12)
        k = k * (1 + (a - 1) * self.k_a)
        r, w, k, v, a = (split(x) for x in (r, w, k, v, a))
        o = recur(r, w, k, v, removed, removed * a)
        normed = self.g_norm(o.flatten(0, 1).flatten(1)).view_as(n)
        bonus = (r * k * self.r_k).sum(-1, keepdim=True)
        y = (normed + (bonus * v).flatten(2)) * gate
        if maps is not None:
            scale = torch.rsqrt(
                o.var(-1, unbiased=False, keepdim=True) + self.g_norm.eps)
            factor = gate * self.g_norm.weight * scale.expand_as(o).flatten(2)
            rows = implicit_rows(r, w, k, removed, removed * a)
            full = rows.repeat_interleave(self.config.head_dim, dim=1)
            full = full * factor.mT.unsqueeze(3)
            direct = (bonus.expand_as(v).flatten(2) * gate).mT
            # The second acts on values before centring within the head.
            maps.append(full + torch.diag_embed(direct))
        return self.o_proj(y), v_first


def recur(r, w, k, v, removed, added):
    """All [B, L, H, S] -> [B, L, H, S]. State: [B, H, value, key]."""
    state = torch.zeros_like(k[:, 0]).unsqueeze(-2) * v[:, 0].unsqueeze(-1)
    outputs = []
    for t in range(k.shape[1]):
        gone = state @ removed[:, t].unsqueeze(-1)             # [B, H, S, 1]
        state = (state * w[:, t].unsqueeze(-2)
                 - gone @ added[:, t].unsqueeze(-2)
                 + v[:, t].unsqueeze(-1) @ k[:, t].unsqueeze(-2))
        outputs.append((state @ r[:, t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, 1)


def implicit_rows(r, w, k, removed, added):
    """A[i, j] = k_j F_{j+1} .. F_i r_i, all rows at once: [B, H, L, L]."""
    length = k.shape[1]
    queries = r.transpose(1, 2).clone()                        # [B, H, i, S]
    columns = []
    for j in range(length - 1, -1, -1):
        column = queries @ k[:, j].unsqueeze(-1)
        seen = torch.arange(length, device=k.device) >= j
        columns.append(column.squeeze(-1) * seen)
        moved = (queries * w[:, j].unsqueeze(-2)
                 - (queries @ added[:, j].unsqueeze(-1))
                 * removed[:, j].unsqueeze(-2))
        # Rows before j are not yet on their way.
        queries = torch.where(seen.unsqueeze(-1), moved, queries)
    return torch.stack(columns[::-1], -1)


class FeedForward(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        e, f = config.hidden_size, config.mlp_width
        self.x_k = nn.Parameter(torch.full((e,), 0.5))
        self.key = linear(e, f)
        self.value = linear(f, e, 0.5)

    def forward(self, m):
        h = self.key(m + (shift(m) - m) * self.x_k)
        return self.value(torch.relu(h).square())


class Layer(nn.Module):
    def __init__(self, config: Config, index: int):
        super().__init__()
        norm = lambda: nn.LayerNorm(config.hidden_size, eps=config.epsilon)
        if index == 0:
            self.pre_norm = norm()
        self.attn_norm = norm()
        self.attn = Attention(config, index)
        self.ffn_norm = norm()
        self.ffn = FeedForward(config)


class Body(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Layer(config, index) for index in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.epsilon)


class Model(LanguageModel):
    def __init__(self, config: Config, dropout=0.0, token_dropout=0.0,
                 embedding_std=0.1):
        super().__init__(config, dropout, token_dropout)
        self.model = Body(config)
        nn.init.normal_(self.model.embeddings.weight, std=embedding_std)
        self.lm_head = linear(config.hidden_size, config.vocab_size, 0.5)

    def embedding(self):
        return self.model.embeddings

    def head_weight(self):
        return self.lm_head.weight

    def blocks(self, r, maps: list | None = None):
        v_first = None
        for index, layer in enumerate(self.model.layers):
            if index == 0:
                r = layer.pre_norm(r)
            out, v_first = layer.attn(layer.attn_norm(r), v_first, maps)
            r = r + self.drop(out)
            r = r + self.drop(layer.ffn(layer.ffn_norm(r)))
        return self.model.norm(r)
