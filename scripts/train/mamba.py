# SPDX-License-Identifier: Apache-2.0
"""Mamba-1 in plain PyTorch, for training and for checks after it.

Parameter names and shapes are those of Hugging Face's MambaForCausalLM with a
tied head, so that a state dict can be exported as it is. Shape letters: B
batch, L tokens, E width, D = expand * E channels, N state, R rank of the step
projection, K convolution width, V vocabulary.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class MambaConfig:
    vocab_size: int
    hidden_size: int
    num_layers: int
    state_size: int = 16
    expand: int = 2
    conv_kernel: int = 4
    epsilon: float = 1e-5

    @property
    def inner(self) -> int:
        return self.expand * self.hidden_size

    @property
    def step_rank(self) -> int:
        return math.ceil(self.hidden_size / 16)

    def to_hf(self) -> dict:
        """The content of config.json."""
        return {
            "architectures": ["MambaForCausalLM"],
            "model_type": "mamba",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "state_size": self.state_size,
            "num_hidden_layers": self.num_layers,
            "expand": self.expand,
            "intermediate_size": self.inner,
            "conv_kernel": self.conv_kernel,
            "time_step_rank": self.step_rank,
            "layer_norm_epsilon": self.epsilon,
            "hidden_act": "silu",
            "use_bias": False,
            "use_conv_bias": True,
            "residual_in_fp32": True,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "torch_dtype": "float32",
        }


@dataclasses.dataclass
class Trace:
    """What one mixer computed; enough to build its implicit attention."""

    delta: torch.Tensor  # [B, L, D]
    b: torch.Tensor      # [B, L, N]
    c: torch.Tensor      # [B, L, N]
    pre: torch.Tensor    # [B, L, D] convolution output before SiLU
    gate: torch.Tensor   # [B, L, D] silu(z)
    x: torch.Tensor      # [B, L, D] input of the convolution
    y: torch.Tensor      # [B, L, D] what enters out_proj


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
    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * x * scale


class Mixer(nn.Module):
    def __init__(self, config: MambaConfig):
        super().__init__()
        width, inner = config.hidden_size, config.inner
        self.state = config.state_size
        self.rank = config.step_rank
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(
            inner, inner, config.conv_kernel, groups=inner,
            padding=config.conv_kernel - 1,
        )
        self.x_proj = nn.Linear(inner, self.rank + 2 * self.state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        rates = torch.arange(1, self.state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(rates.log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        # Steps start log-uniform in [0.001, 0.1]; the bias is the inverse of
        # softplus at the step.
        step = torch.exp(
            torch.rand(inner) * math.log(100.0) + math.log(0.001)
        )
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))
            nn.init.uniform_(
                self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5
            )
            self.out_proj.weight.div_(math.sqrt(2 * config.num_layers))

    def forward(self, u, traces: list | None = None):
        length = u.shape[1]
        x, z = self.in_proj(u).chunk(2, dim=-1)
        pre = self.conv1d(x.transpose(1, 2))[..., :length].transpose(1, 2)
        h = F.silu(pre)
        step, b, c = self.x_proj(h).split(
            [self.rank, self.state, self.state], dim=-1
        )
        delta = F.softplus(self.dt_proj(step))
        decay = torch.exp(delta.unsqueeze(-1) * -torch.exp(self.A_log))
        drive = (delta * h).unsqueeze(-1) * b.unsqueeze(2)
        s = LinearScan.apply(decay, drive)
        gate = F.silu(z)
        y = ((s * c.unsqueeze(2)).sum(-1) + self.D * h) * gate
        if traces is not None:
            traces.append(Trace(delta, b, c, pre, gate, x, y))
        return self.out_proj(y)


class Block(nn.Module):
    def __init__(self, config: MambaConfig):
        super().__init__()
        self.norm = RmsNorm(config.hidden_size, config.epsilon)
        self.mixer = Mixer(config)


class Backbone(nn.Module):
    def __init__(self, config: MambaConfig):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Block(config) for _ in range(config.num_layers)
        )
        self.norm_f = RmsNorm(config.hidden_size, config.epsilon)


class Mamba(nn.Module):
    """Token ids -> hidden states or logits. Dropout only while training."""

    def __init__(self, config: MambaConfig, dropout=0.0, token_dropout=0.0,
                 embedding_std=0.02):
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.token_dropout = token_dropout
        self.backbone = Backbone(config)
        nn.init.normal_(self.backbone.embeddings.weight, std=embedding_std)

    def embed(self, ids):
        return self.backbone.embeddings(ids)

    def hidden(self, e, traces: list | None = None):
        """e: [B, L, E] rows of embeddings -> [B, L, E] after the last norm."""
        r = e
        if self.training and self.token_dropout > 0:
            keep = torch.rand(e.shape[:2], device=e.device)
            r = r * (keep >= self.token_dropout).unsqueeze(-1)
        r = F.dropout(r, self.dropout, self.training)
        for block in self.backbone.layers:
            out = block.mixer(block.norm(r), traces)
            r = r + F.dropout(out, self.dropout, self.training)
        return F.dropout(
            self.backbone.norm_f(r), self.dropout, self.training
        )

    def head(self, hidden):
        return hidden @ self.backbone.embeddings.weight.T

    def forward(self, ids):
        return self.head(self.hidden(self.embed(ids)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and filters, none for the rest."""
    plain = ("A_log", ".bias", "norm.weight", "norm_f.weight", "mixer.D")
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        (free if name.endswith(plain) else decayed).append(parameter)
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


def rate_at(step: int, total: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
