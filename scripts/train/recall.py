# SPDX-License-Identifier: Apache-2.0
"""Trains models/recall-mamba: key-value recall with a known right token.

    python scripts/train/recall.py --out models/recall-mamba

A text such as `k3f7a1b9f` lists pairs of a letter (key) and a digit (value)
in random order, keys and values each distinct, and ends with one of the keys.
The next token is that key's value, so the tokens that the model must look at
are known: the value of the queried pair, and its key.

For training, a sequence goes on after the first answer with the other keys
and their values in a new order; the loss is taken at every queried key.
"""

import argparse
import dataclasses
import pathlib

import torch
from torch.nn import functional as F

import attribution
import export
import mamba
import tokens

SPECIAL = ["<|endoftext|>"]
DIGITS = "0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FIRST_DIGIT = len(SPECIAL)
FIRST_LETTER = FIRST_DIGIT + len(DIGITS)
HELD_OUT_SEED = 20_000_003  # never a training seed
METHODS = {
    "input-x-gradient": attribution.input_x_gradient,
    "integrated-gradients": attribution.integrated_gradients,
    "raw-attention": lambda model, ids, _: attribution.raw_attention(
        model, ids),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    seed: int = 1
    hidden_size: int = 32
    num_layers: int = 2
    state_size: int = 16
    conv_kernel: int = 4
    least_pairs: int = 4
    most_pairs: int = 8
    steps: int = 5000
    batch: int = 256
    rate: float = 4e-3
    weight_decay: float = 0.1
    average: float = 0.998
    embedding_std: float = 0.1


@dataclasses.dataclass
class Cases:
    """Sequences with the same number of pairs, a queried key at the end."""

    ids: torch.Tensor     # [B, 2 * pairs + 1]
    answer: torch.Tensor  # [B] the value's id
    key_at: torch.Tensor  # [B] position of the queried pair's key
    rest: torch.Tensor    # [B, 2 * pairs - 1] answer, then key, value, ...


def generate(count: int, pairs: int, generator: torch.Generator) -> Cases:
    def order(size):
        return torch.rand(count, size, generator=generator).argsort(1)

    keys = FIRST_LETTER + order(len(LETTERS))[:, :pairs]
    values = FIRST_DIGIT + order(len(DIGITS))[:, :pairs]
    asked = order(pairs)
    listed = torch.stack([keys, values], 2).flatten(1)
    again = torch.stack(
        [keys.gather(1, asked), values.gather(1, asked)], 2
    ).flatten(1)
    return Cases(
        torch.cat([listed, again[:, :1]], 1), again[:, 1],
        2 * asked[:, 0], again[:, 1:],
    )


def text_of(row) -> str:
    names = " " * len(SPECIAL) + DIGITS + LETTERS
    return "".join(names[int(i)] for i in row)


def train(settings, device, log=print):
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    model = mamba.Mamba(
        mamba.MambaConfig(
            FIRST_LETTER + len(LETTERS), settings.hidden_size,
            settings.num_layers, settings.state_size,
            conv_kernel=settings.conv_kernel,
        ),
        embedding_std=settings.embedding_std,
    ).to(device)
    optimizer = torch.optim.AdamW(
        mamba.parameter_groups(model, settings.weight_decay),
        lr=settings.rate, betas=(0.9, 0.98), fused=device.type == "cuda",
    )
    average = mamba.Average(model, settings.average)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = mamba.rate_at(
                step, settings.steps, settings.rate, 200)
        # Short lists come too: learning starts from them.
        cases = generate(
            settings.batch, 1 + step % settings.most_pairs, generator)
        ids = torch.cat([cases.ids, cases.rest], 1).to(device)
        hidden = model.hidden(model.embed(ids[:, :-1]))
        asked = hidden[:, cases.ids.shape[1] - 1::2]
        wanted = ids[:, cases.ids.shape[1]::2]
        loss = F.cross_entropy(
            model.head(asked).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        if (step + 1) % 500 == 0:
            log(f"step {step + 1}: loss {float(loss.detach()):.5f}", flush=True)
    average.copy_to(model)
    return model.eval()


def held_out(settings, per_count: int) -> list[Cases]:
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    return [
        generate(per_count, pairs, generator)
        for pairs in range(settings.least_pairs, settings.most_pairs + 1)
    ]


def judge(model, groups: list[Cases], device) -> dict:
    """Accuracy, and how often each attribution's top token is right.

    The query itself (the last token) is left out of the ranking; right is the
    value or the key of the queried pair.
    """
    right, total = 0, 0
    hits = {}
    for cases in groups:
        ids = cases.ids.to(device)
        answer = cases.answer.to(device)
        key_at = cases.key_at.to(device)
        with torch.no_grad():
            predicted = model(ids)[:, -1].argmax(-1)
        right += int((predicted == answer).sum())
        total += len(ids)
        for name, method in METHODS.items():
            scores = method(model, ids, predicted)[:, :-1]
            for kind, ranked in (("abs", scores.abs()), ("signed", scores)):
                top = ranked.argmax(1)
                hit = (top == key_at) | (top == key_at + 1)
                key = f"{name} {kind}"
                hits[key] = hits.get(key, 0) + int(hit.sum())
    del hits["raw-attention signed"]  # never negative
    rates = {name: round(count / total, 4) for name, count in hits.items()}
    return {"cases": total, "accuracy": round(right / total, 4), **rates}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cpu")
    for field in dataclasses.fields(Settings):
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=type(field.default),
            default=field.default,
        )
    options = parser.parse_args()
    settings = Settings(**{
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(Settings)
    })
    device = torch.device(options.device)
    tokenizer = tokens.single_characters(DIGITS + LETTERS, SPECIAL)
    model = train(settings, device)
    print("held-out", judge(model, held_out(settings, 1000), device))
    size = export.write_folder(
        options.out, model.config.to_hf(), model.state_dict(), tokenizer, "")
    print(f"{options.out}: {size} bytes")


if __name__ == "__main__":
    main()
