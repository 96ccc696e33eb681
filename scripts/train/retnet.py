# SPDX-License-Identifier: Apache-2.0
"""RetNet in plain PyTorch: fixed decays, queries and keys rotated.

Shared with others: `linear_attention`.
"""

import dataclasses

import torch

import linear_attention

ROTARY_BASE = 10000.0


@dataclasses.dataclass(frozen=True)
class Config(linear_attention.Config):
    model_type = "retnet"
    published_class = "RetNetForCausalLM"
    norm_name = "g_norm_swish_gate"


def rotated(x):
    """[B, L, H, N]: pairs (n, n + N/2) turned by angles that grow with the
    position."""
    half = x.shape[-1] // 2
    rates = ROTARY_BASE ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(x.shape[1], device=x.device).outer(rates)
    cos, sin = (part.unsqueeze(1).to(x.dtype)
                for part in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin,
                      second * cos + first * sin], -1)


class Attention(linear_attention.Attention):
    def matrix(self, n, query, key):
        heads = torch.arange(self.config.heads, device=n.device)
        log_decay = torch.log1p(-torch.exp2(-5.0 - heads)).to(n.dtype)
        return linear_attention.by_head_decay(
            rotated(query), rotated(key),
            log_decay.expand(1, n.shape[1], -1))


class Model(linear_attention.Model):
    attention = Attention
