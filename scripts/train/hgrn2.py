# SPDX-License-Identifier: Apache-2.0
"""HGRN2 in plain PyTorch: what a key does not forget it does not write.

There are as many keys as hidden units. Shared with others:
`linear_attention`.
"""

import dataclasses

import torch
from torch.nn import functional as F

import linear_attention


@dataclasses.dataclass(frozen=True)
class Config(linear_attention.Config):
    model_type = "hgrn2"
    published_class = "HGRN2ForCausalLM"
    names = "qfi"
    norm_name = "g_norm"
    silu = False
    gated = False

    def heads_to_hf(self) -> dict:
        return {"num_heads": self.heads, "expand_ratio": self.key_size,
                "use_lower_bound": False}


class Attention(linear_attention.Attention):
    def norm_width(self) -> int:
        return self.config.heads * self.config.value_size

    def matrix(self, n, query, key):
        return linear_attention.by_key_decay(
            F.silu(query), torch.sigmoid(-key), F.logsigmoid(key))


class Model(linear_attention.Model):
    attention = Attention
