# SPDX-License-Identifier: Apache-2.0
"""Three simple attributions of a target logit to the input tokens.

They exist to check that a trained model is fit for demonstrations and tests;
the server has its own implementations. All explain the last position and
return [B, L] (`elementwise` sums over E are taken here).
"""

import torch
from torch.nn import functional as F


def _gradient(model, e, target):
    """d logit[target] at the last position / d e."""
    e = e.detach().requires_grad_(True)
    logits = model.head(model.hidden(e)[:, -1])
    picked = logits.gather(1, target.unsqueeze(1)).sum()
    return torch.autograd.grad(picked, e)[0]


def input_x_gradient(model, ids, target):
    e = model.embed(ids).detach()
    return (e * _gradient(model, e, target)).sum(-1)


def integrated_gradients(model, ids, target, steps=64):
    """Baseline 0; nodes t = u^3 at midpoints u, weights 3 u^2 / steps.

    The cubic spacing puts nodes where a pre-norm network turns over, near 0.
    """
    e = model.embed(ids).detach()
    total = torch.zeros_like(e)
    for k in range(steps):
        u = (k + 0.5) / steps
        total += 3 * u * u / steps * _gradient(model, e * u**3, target)
    return (e * total).sum(-1)


@torch.no_grad()
def attention_rows(model, ids):
    """Last row of the implicit attention, per layer: list of [B, D, L]."""
    traces = []
    model.hidden(model.embed(ids), traces)
    rows = []
    for block, trace in zip(model.backbone.layers, traces):
        mixer = block.mixer
        elapsed = trace.delta.cumsum(1)
        elapsed = elapsed[:, -1:] - elapsed                       # [B, L, D]
        decay = torch.exp(
            elapsed.unsqueeze(-1) * -torch.exp(mixer.A_log)
        )                                                      # [B, L, D, N]
        inner = trace.c[:, -1:] * trace.b                         # [B, L, N]
        row = trace.delta * (decay * inner.unsqueeze(2)).sum(-1)
        row[:, -1] += mixer.D
        row = row * torch.sigmoid(trace.pre)
        taps = mixer.conv1d.weight[:, 0]                             # [D, K]
        width = taps.shape[1]
        length = row.shape[1]
        ahead = F.pad(row, (0, 0, 0, width - 1))
        row = sum(
            taps[:, width - 1 - d] * ahead[:, d:d + length]
            for d in range(width)
        )
        row = row * trace.gate[:, -1:]
        rows.append(row.transpose(1, 2))
    return rows


def raw_attention(model, ids):
    """|alpha| averaged over channels, then over layers."""
    rows = attention_rows(model, ids)
    return sum(row.abs().mean(1) for row in rows) / len(rows)
