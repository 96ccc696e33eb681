# SPDX-License-Identifier: Apache-2.0
"""What the model families share: layers, the model's outer shape, training.

Shape letters in all family files: B batch, L tokens, E width, D channels that
enter a block's output projection, N state, H heads, S or P head width, V
vocabulary. Every mixer computes its recurrence in a form that is quick for
the short sequences used here, and on request appends its implicit attention
[B, D, L, L] (row = output position) to a list; the map's input and its
constant part are not needed here.
"""

import math
import time

import torch
from torch import nn
from torch.nn import functional as F


class LinearScan(torch.autograd.Function):
    """s[t] = decay[t] * s[t-1] + drive[t] along dim 1, from s = 0.

    A loop over time with one kernel a step, forward and backward, and nothing
    kept but the states: for the short sequences here it moves far less memory
    than what autograd would record.
    """

    @staticmethod
    def forward(ctx, decay, drive):
        states = torch.empty_like(drive)
        states[:, 0] = drive[:, 0]
        for t in range(1, drive.shape[1]):
            torch.addcmul(drive[:, t], decay[:, t], states[:, t - 1],
                          out=states[:, t])
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx, grad):
        decay, states = ctx.saved_tensors
        total = torch.empty_like(states)
        total[:, -1] = grad[:, -1]
        for t in range(grad.shape[1] - 2, -1, -1):
            torch.addcmul(grad[:, t], decay[:, t + 1], total[:, t + 1],
                          out=total[:, t])
        by_decay = torch.zeros_like(states)
        torch.mul(total[:, 1:], states[:, :-1], out=by_decay[:, 1:])
        return by_decay, total


class RmsNorm(nn.Module):
    """`offset` is added to the weight: 1 in Gemma's layout."""

    def __init__(self, width: int, epsilon: float, offset=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.epsilon = epsilon
        self.offset = offset

    def forward(self, x):
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon)
        weight = self.weight + self.offset if self.offset else self.weight
        return weight * x * scale


def linear(inputs: int, outputs: int, gain=1.0) -> nn.Linear:
    """Without bias; outputs as large as unit inputs times `gain`."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=gain * inputs**-0.5)
    return layer


def shift(x):
    """[B, L, E] -> the token before each, zero before the first."""
    return F.pad(x, (0, 0, 1, -1))


def depthwise(channels: int, taps: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, taps, groups=channels,
                     padding=taps - 1)


def causal_conv(conv: nn.Conv1d, x):
    """[B, L, D] -> [B, L, D]; token i sees i - K + 1 .. i."""
    return conv(x.transpose(1, 2))[..., :x.shape[1]].transpose(1, 2)


def inverse_softplus(x):
    return x + torch.log(-torch.expm1(-x))


def causal(length: int, device, diagonal=0):
    """[L, L] bool: j <= i + diagonal."""
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril(diagonal)


def segments(log_decay, diagonal=0):
    """[B, L, ...] -> [B, L(i), L(j), ...]: exp(sum over m = j+1 .. i).

    Zero where j > i + diagonal. With `diagonal=-1` the sum ends at i - 1.
    The sums are never exponentiated alone, so nothing overflows.
    """
    total = log_decay.cumsum(1)
    ahead = total if diagonal == 0 else total - log_decay
    difference = ahead.unsqueeze(2) - total.unsqueeze(1)
    mask = causal(log_decay.shape[1], log_decay.device, diagonal)
    mask = mask.view(*mask.shape, *[1] * (log_decay.dim() - 2))
    return torch.exp(difference.masked_fill(~mask, -torch.inf))


def through_conv(attention, conv: nn.Conv1d):
    """Attention on a convolution's output -> on its input. [B, D, L, L]."""
    taps = conv.weight[:, 0]
    width, length = taps.shape[1], attention.shape[-1]
    ahead = F.pad(attention, (0, width - 1))
    return sum(
        taps[:, width - 1 - d, None, None] * ahead[..., d:d + length]
        for d in range(width)
    )


class LanguageModel(nn.Module):
    """Token ids -> hidden states or logits. Dropout only while training.

    A family gives `embedding()`, `blocks(r, maps)` and `head_weight()`.
    """

    def __init__(self, config, dropout=0.0, token_dropout=0.0):
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.token_dropout = token_dropout

    def drop(self, x):
        return F.dropout(x, self.dropout, self.training)

    def embed(self, ids):
        return self.embedding()(ids)

    def hidden(self, e, maps: list | None = None):
        """e: [B, L, E] rows of embeddings -> [B, L, E] after the last norm."""
        if self.training and self.token_dropout > 0:
            keep = torch.rand(e.shape[:2], device=e.device)
            e = e * (keep >= self.token_dropout).unsqueeze(-1)
        return self.drop(self.blocks(self.drop(e), maps))

    def uncapped(self, hidden):
        """Logits before a soft cap: what explanations are about."""
        return hidden @ self.head_weight().T

    def logits(self, hidden):
        return self.uncapped(hidden)

    def forward(self, ids):
        return self.logits(self.hidden(self.embed(ids)))


# Parameters of two or more dimensions that are no matrices of weights.
UNDECAYED = (
    "A_log", "A_b_log", "_gate_bias", "time_decay", "time_faaaa",
    "time_mix_key", "time_mix_value", "time_mix_receptance", "time_mix_gate",
    "time_maa_x", "time_maa_w", "time_maa_k", "time_maa_v", "time_maa_r",
    "time_maa_g", "attn.x_r", "attn.x_w", "attn.x_k", "attn.x_v", "attn.x_a",
    "attn.x_g", "attn.r_k", "cls_token", "pos_embed",
)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and filters, none for the rest."""
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        plain = parameter.dim() < 2 or name.endswith(UNDECAYED)
        (free if plain else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


class Average:
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.values = [p.detach().clone() for p in model.parameters()]

    def update(self, model: nn.Module) -> None:
        self.steps += 1
        # Young averages forget faster, so that the start does not linger.
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(
                self.values, list(model.parameters()), 1.0 - decay
            )

    def copy_to(self, model: nn.Module) -> None:
        with torch.no_grad():
            for target, value in zip(model.parameters(), self.values):
                target.copy_(value)


class Trainer:
    """AdamW with a schedule, clipped gradients and a moving average.

    With `seconds` the schedule also runs on the clock, whichever is ahead:
    for trials that have only minutes.
    """

    def __init__(self, model, settings, total: int, warmup=200, seconds=0.0):
        self.model, self.settings = model, settings
        self.total, self.warmup, self.done = total, warmup, 0
        self.seconds, self.start = seconds, time.monotonic()
        cuda = next(model.parameters()).device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay),
            lr=settings.rate, betas=(0.9, 0.98), fused=cuda,
        )
        self.average = Average(model, settings.average)

    def position(self) -> int:
        """Steps done, or as many as the clock stands for."""
        if not self.seconds:
            return self.done
        share = (time.monotonic() - self.start) / self.seconds
        return min(self.total, max(self.done, int(share * self.total)))

    @property
    def finished(self) -> bool:
        return self.position() >= self.total

    def step(self, loss) -> None:
        rate = min(
            rate_at(self.position(), self.total, self.settings.rate, 0),
            self.settings.rate * (self.done + 1) / self.warmup,
        ) if self.seconds else rate_at(
            self.done, self.total, self.settings.rate, self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.model)
        self.done += 1


def rate_at(step: int, total: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
