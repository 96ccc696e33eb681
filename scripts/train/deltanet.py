# SPDX-License-Identifier: Apache-2.0
"""DeltaNet in plain PyTorch: a key's old value is taken back.

Shared with others: `linear_attention`.
"""

import dataclasses

import torch

import linear_attention
from network import linear


@dataclasses.dataclass(frozen=True)
class Config(linear_attention.Config):
    model_type = "delta_net"
    published_class = "DeltaNetForCausalLM"
    gated = False

    def heads_to_hf(self) -> dict:
        return super().heads_to_hf() | {
            "qk_activation": "silu", "qk_norm": "l2", "use_beta": True,
            "use_gate": False,
        }


class Attention(linear_attention.Attention):
    def add_own(self, config: Config):
        self.b_proj = linear(config.hidden_size, config.heads)

    def matrix(self, n, query, key):
        strength = torch.sigmoid(self.b_proj(n))
        return linear_attention.delta_rule(
            linear_attention.normalize(query),
            linear_attention.normalize(key), strength,
            torch.zeros_like(strength))


class Model(linear_attention.Model):
    attention = Attention
