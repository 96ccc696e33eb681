# SPDX-License-Identifier: Apache-2.0
"""GLA in plain PyTorch: decays of each key, made by two small projections.

Shared with others: `linear_attention`.
"""

import dataclasses

from torch import nn
from torch.nn import functional as F

import linear_attention
from network import linear


@dataclasses.dataclass(frozen=True)
class Config(linear_attention.Config):
    model_type = "gla"
    published_class = "GLAForCausalLM"
    norm_name = "g_norm_swish_gate"


class Attention(linear_attention.Attention):
    RANK = 16

    def add_own(self, config: Config):
        self.gk_proj = nn.Sequential(
            linear(config.hidden_size, self.RANK),
            nn.Linear(self.RANK, config.heads * config.key_size),
        )

    def matrix(self, n, query, key):
        log_decay = F.logsigmoid(self.gk_proj(n)) / 16
        return linear_attention.by_key_decay(
            query, key, log_decay.view_as(key))


class Model(linear_attention.Model):
    attention = Attention
