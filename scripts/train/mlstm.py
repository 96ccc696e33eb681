# SPDX-License-Identifier: Apache-2.0
"""xLSTM of mLSTM blocks in plain PyTorch: the quadratic form.

Parameter names and shapes are those of Hugging Face's xLSTMForCausalLM. Gates
are exponential, so a row of the recurrence is divided by its sum, or by what
that sum must at least be. Shared notation: `network`.
"""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

from network import LanguageModel, RmsNorm, causal, linear

CLASS = "xLSTMForCausalLM"


@dataclasses.dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int
    num_layers: int
    heads: int = 2
    key_width: int = 64     # of all heads
    mlp_width: int = 64
    epsilon: float = 1e-6
    gate_cap: float = 15.0
    logit_cap: float = 30.0

    def to_hf(self) -> dict:
        """The content of config.json."""
        return {
            "architectures": [CLASS],
            "model_type": "xlstm",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "embedding_dim": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_blocks": self.num_layers,
            "num_heads": self.heads,
            "qk_dim_factor": self.key_width / self.hidden_size,
            "v_dim_factor": 1.0,
            "ffn_proj_factor": self.mlp_width / self.hidden_size,
            "ffn_round_up_to_multiple_of": 1,
            "use_bias": False,
            "weight_mode": "single",
            "norm_eps": self.epsilon,
            "eps": self.epsilon,
            "gate_soft_cap": self.gate_cap,
            "output_logit_soft_cap": self.logit_cap,
            "autocast_kernel_dtype": "float32",
            "inference_state_dtype": "float32",
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "torch_dtype": "float32",
        }

    @classmethod
    def from_hf(cls, config: dict, state: dict) -> "Config":
        width = config["hidden_size"]
        return cls(
            config["vocab_size"], width, config["num_hidden_layers"],
            config["num_heads"], round(config["qk_dim_factor"] * width),
            round(config["ffn_proj_factor"] * width), config["norm_eps"],
            config["gate_soft_cap"], config["output_logit_soft_cap"],
        )

    def describe(self) -> str:
        layers = "1 layer" if self.num_layers == 1 else (
            f"{self.num_layers} layers")
        return (f"E={self.hidden_size}, {layers}, {self.heads} head(s) of "
                f"{self.key_width // self.heads} keys and "
                f"{self.hidden_size // self.heads} values, "
                f"feed-forward {self.mlp_width}")


def capped(x, cap: float):
    return torch.tanh(x / cap) * cap


class Norm(nn.Module):
    """Names the heads' norm's weight as published."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Mixer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        e = config.hidden_size
        self.q = linear(e, config.key_width)
        self.k = linear(e, config.key_width)
        self.v = linear(e, e)
        self.ogate_preact = linear(e, e)
        self.igate_preact = nn.Linear(e, config.heads)
        self.fgate_preact = nn.Linear(e, config.heads)
        with torch.no_grad():
            # Heads that forget at once up to heads that hardly do.
            self.fgate_preact.bias.copy_(
                torch.linspace(0.0, 5.0, config.heads))
        self.multihead_norm = Norm(e)
        self.out_proj = linear(e, e)

    def matrix(self, n):
        """[B, H, L, L], normalised."""
        c = self.config
        split = lambda x: x.unflatten(-1, (c.heads, -1))
        query, key = split(self.q(n)), split(self.k(n))
        entered = capped(self.igate_preact(n), c.gate_cap)
        kept = F.logsigmoid(capped(self.fgate_preact(n), c.gate_cap))
        total = kept.cumsum(1)                                  # [B, L, H]
        exponent = (total.unsqueeze(2) - total.unsqueeze(1)
                    + entered.unsqueeze(1)).permute(0, 3, 1, 2)
        exponent = exponent.masked_fill(
            ~causal(n.shape[1], n.device), -torch.inf)
        # The empty state before the first token takes part with exponent 0.
        largest = torch.maximum(exponent.amax(-1), total.mT).unsqueeze(3)
        scores = torch.einsum("bihn,bjhn->bhij", query, key)
        rows = scores * key.shape[-1]**-0.5 * torch.exp(exponent - largest)
        least = torch.exp(-largest)
        sums = rows.sum(-1, keepdim=True).abs()
        return rows / (torch.maximum(sums, least) + c.epsilon)

    def forward(self, n, maps: list | None = None):
        c = self.config
        rows = self.matrix(n)
        value = self.v(n).unflatten(-1, (c.heads, -1))
        o = torch.einsum("bhij,bjhp->bihp", rows, value)
        centred = o - o.mean(-1, keepdim=True)
        scale = torch.rsqrt(
            centred.square().mean(-1, keepdim=True) + c.epsilon)
        factor = scale.expand_as(o).flatten(2) * self.multihead_norm.weight
        factor = factor * torch.sigmoid(self.ogate_preact(n))
        if maps is not None:
            # Acts on values from which the head's mean is taken.
            full = rows.repeat_interleave(value.shape[-1], dim=1)
            maps.append(full * factor.mT.unsqueeze(3))
        return self.out_proj(centred.flatten(2) * factor)


class FeedForward(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        e, f = config.hidden_size, config.mlp_width
        self.proj_up_gate = linear(e, f)
        self.proj_up = linear(e, f)
        self.proj_down = linear(f, e, 0.5)

    def forward(self, m):
        return self.proj_down(F.silu(self.proj_up_gate(m)) * self.proj_up(m))


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.norm_mlstm = RmsNorm(config.hidden_size, config.epsilon)
        self.mlstm_layer = Mixer(config)
        self.norm_ffn = RmsNorm(config.hidden_size, config.epsilon)
        self.ffn = FeedForward(config)


class Body(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(
            Block(config) for _ in range(config.num_layers))
        self.out_norm = RmsNorm(config.hidden_size, config.epsilon)


class Model(LanguageModel):
    def __init__(self, config: Config, dropout=0.0, token_dropout=0.0,
                 embedding_std=0.1):
        super().__init__(config, dropout, token_dropout)
        self.backbone = Body(config)
        nn.init.normal_(self.backbone.embeddings.weight, std=embedding_std)
        self.lm_head = linear(config.hidden_size, config.vocab_size, 0.5)

    def embedding(self):
        return self.backbone.embeddings

    def head_weight(self):
        return self.lm_head.weight

    def logits(self, hidden):
        return capped(self.uncapped(hidden), self.config.logit_cap)

    def blocks(self, r, maps: list | None = None):
        for block in self.backbone.blocks:
            r = r + self.drop(block.mlstm_layer(block.norm_mlstm(r), maps))
            r = r + self.drop(block.ffn(block.norm_ffn(r)))
        return self.backbone.out_norm(r)
