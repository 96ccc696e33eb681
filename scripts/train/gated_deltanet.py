# SPDX-License-Identifier: Apache-2.0
"""Gated DeltaNet in plain PyTorch: the delta rule on a state that decays.

Shared with others: `linear_attention`.
"""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

import linear_attention
from network import inverse_softplus, linear


@dataclasses.dataclass(frozen=True)
class Config(linear_attention.Config):
    model_type = "gated_deltanet"
    published_class = "GatedDeltaNetForCausalLM"

    def heads_to_hf(self) -> dict:
        return {
            "num_heads": self.heads, "head_dim": self.key_size,
            "expand_v": self.value_size / self.key_size, "use_gate": True,
        }


class Attention(linear_attention.Attention):
    def add_own(self, config: Config):
        self.a_proj = linear(config.hidden_size, config.heads)
        self.b_proj = linear(config.hidden_size, config.heads)
        self.A_log = nn.Parameter(torch.zeros(config.heads))
        self.dt_bias = nn.Parameter(inverse_softplus(
            torch.full((config.heads,), 0.01)))

    def matrix(self, n, query, key):
        step = F.softplus(self.a_proj(n) + self.dt_bias)
        return linear_attention.delta_rule(
            linear_attention.normalize(query),
            linear_attention.normalize(key), torch.sigmoid(self.b_proj(n)),
            -torch.exp(self.A_log) * step)


class Model(linear_attention.Model):
    attention = Attention
