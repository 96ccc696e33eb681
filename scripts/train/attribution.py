# SPDX-License-Identifier: Apache-2.0
"""Simple attributions of a target logit to the tokens or patches.

They exist to check that a trained model is fit for demonstrations and tests;
the server has its own implementations. `score(hidden)` gives the logits that
are explained, and `hidden` must be the position that is explained.
"""

import torch


def _gradient(score, e, target):
    """d logit[target] / d e."""
    e = e.detach().requires_grad_(True)
    picked = score(e).gather(1, target.unsqueeze(1)).sum()
    return torch.autograd.grad(picked, e)[0]


def _input_x_gradient(score, e, target):
    return (e * _gradient(score, e, target)).sum(-1)


def _integrated_gradients(score, e, target, steps=64):
    """Baseline 0; nodes t = u^3 at midpoints u, weights 3 u^2 / steps.

    The cubic spacing puts nodes where a pre-norm network turns over, near 0.
    """
    total = torch.zeros_like(e)
    for k in range(steps):
        u = (k + 0.5) / steps
        total += 3 * u * u / steps * _gradient(score, e * u**3, target)
    return (e * total).sum(-1)


def _raw_attention(maps, position):
    """One row of |alpha|, averaged over channels, then over layers."""
    rows = [part[:, :, position].abs().mean(1) for part in maps]
    return sum(rows) / len(rows)


def _rollout(maps, position):
    """Mean |alpha| plus identity, rows normalised, later layers on the left;
    one row of the product."""
    first = maps[0]
    row = torch.zeros(len(first), first.shape[-1], device=first.device)
    row[:, position] = 1.0
    for part in reversed(maps):
        mixed = part.abs().mean(1) + torch.eye(
            part.shape[-1], device=part.device)
        mixed = mixed / mixed.sum(-1, keepdim=True)
        row = torch.einsum("bi,bij->bj", row, mixed)
    return row


def of_text(model, ids, target) -> dict:
    """Name -> [B, L]: the last position's uncapped logit explained."""
    score = lambda e: model.uncapped(model.hidden(e)[:, -1])
    e = model.embed(ids).detach()
    maps = []
    with torch.no_grad():
        model.hidden(e, maps)
    return {
        "input-x-gradient": _input_x_gradient(score, e, target),
        "integrated-gradients": _integrated_gradients(score, e, target),
        "raw-attention": _raw_attention(maps, -1),
    }


def of_picture(model, pixels, target) -> dict:
    """Name -> [B, P]: the class token explained, itself left out."""
    score = lambda e: model.head(model.hidden(e))
    e = model.embed(pixels).detach()
    maps = []
    with torch.no_grad():
        model.hidden(e, maps)
    middle = model.config.middle
    found = {
        "raw-attention": _raw_attention(maps, middle),
        "rollout": _rollout(maps, middle),
        "input-x-gradient": _input_x_gradient(score, e, target),
        "integrated-gradients": _integrated_gradients(score, e, target),
    }
    return {
        name: torch.cat([row[:, :middle], row[:, middle + 1:]], 1)
        for name, row in found.items()
    }
