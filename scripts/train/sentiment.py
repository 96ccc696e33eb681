# SPDX-License-Identifier: Apache-2.0
"""Trains models/sentiment-mamba: a language model that ends a text with its
sentiment.

    python scripts/train/sentiment.py --out models/sentiment-mamba

A training sequence is the tokens of a text, then <|good|> or <|bad|>. The
label is predicted at the last token of the text, without a template, so that
an explanation of that position explains the sentiment. Raters disagree, so
the target is a probability that grows with the mean rating. The ordinary
next-token loss is added with a small weight.

Settings were chosen on the dev part (--tune trains without it and reports on
it); the committed model uses train and dev. The held-out part is looked at
once, at the end.
"""

import argparse
import dataclasses
import json
import pathlib
import random

import torch
from torch.nn import functional as F

import data
import export
import mamba
import tokens

SPECIAL = ["<|endoftext|>", "<|good|>", "<|bad|>"]
PAD, GOOD, BAD = 0, 1, 2
STRONG = 0.5  # |rating| above which the sign is asked for
MAX_TOKENS = 96


@dataclasses.dataclass(frozen=True)
class Settings:
    seed: int = 1
    vocab_size: int = 4096
    hidden_size: int = 128
    num_layers: int = 2
    state_size: int = 8
    epochs: int = 14
    batch: int = 64
    rate: float = 3e-3
    weight_decay: float = 0.1
    dropout: float = 0.3
    token_dropout: float = 0.15
    split_tokens: float = 0.1   # chance that a merge is undone
    lower: float = 0.15         # chance that a text is lower-cased
    unstop: float = 0.15        # chance that the final full stop goes
    softness: float = 1.5       # target = sigmoid(softness * rating)
    next_token_weight: float = 0.1
    average: float = 0.998
    embedding_std: float = 0.02


class Corpus:
    """Encoded texts with the variants that training draws from."""

    def __init__(self, rows, tokenizer, settings):
        self.rows = rows
        self.settings = settings
        self.parents = tokens.merge_parents(tokenizer)
        encode = lambda texts: [
            x.ids for x in tokenizer.encode_batch(
                list(texts), add_special_tokens=False)
        ]
        texts = [row.text for row in rows]
        self.plain = encode(texts)
        self.lowered = encode(text.lower() for text in texts)
        stopless = [text.rstrip(" .") or text for text in texts]
        self.stopless = encode(stopless)
        self.targets = torch.sigmoid(
            settings.softness * torch.tensor([row.rating for row in rows])
        )

    def draw(self, index: int, rng: random.Random) -> list[int]:
        """One text as ids, perhaps altered."""
        s = self.settings
        dice = rng.random()
        if dice < s.lower:
            ids = self.lowered[index]
        elif dice < s.lower + s.unstop:
            ids = self.stopless[index]
        else:
            ids = self.plain[index]
        if s.split_tokens > 0:
            ids = self._undo_merges(ids, rng)
        return ids[-MAX_TOKENS:]

    def _undo_merges(self, ids, rng):
        result, stack = [], list(reversed(ids))
        while stack:
            token = stack.pop()
            pair = self.parents.get(token)
            if pair is not None and rng.random() < self.settings.split_tokens:
                stack += [pair[1], pair[0]]
            else:
                result.append(token)
        return result

    def batches(self, rng, batch, device):
        """One epoch: texts of like length together, batches in random order."""
        drawn = [self.draw(i, rng) for i in range(len(self.rows))]
        order = sorted(
            range(len(drawn)), key=lambda i: len(drawn[i]) + 4 * rng.random()
        )
        groups = [order[i:i + batch] for i in range(0, len(order), batch)]
        rng.shuffle(groups)
        for group in groups:
            ids, lengths = pad([drawn[i] for i in group])
            yield (ids.to(device, non_blocking=True),
                   lengths.to(device, non_blocking=True),
                   self.targets[group].to(device, non_blocking=True))


def pad(rows):
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), PAD)
    for line, row in zip(ids, rows):
        line[:len(row)] = torch.tensor(row)
    return ids, lengths


def loss_of(model, ids, lengths, target, next_token_weight):
    """Label loss at the last token plus weighted next-token loss."""
    hidden = model.hidden(model.embed(ids))
    rows = torch.arange(len(ids), device=ids.device)
    label = F.log_softmax(model.head(hidden[rows, lengths - 1]), -1)
    loss = -(target * label[:, GOOD] + (1 - target) * label[:, BAD]).mean()
    if next_token_weight > 0:
        position = torch.arange(ids.shape[1] - 1, device=ids.device)
        inside = position < (lengths - 1).unsqueeze(1)
        logits = model.head(hidden[:, :-1])
        following = F.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        ).view_as(inside)
        loss = loss + next_token_weight * (
            (following * inside).sum() / inside.sum().clamp(min=1)
        )
    return loss


@torch.inference_mode()
def last_logits(model, tokenizer, texts, device, batch=256):
    """[texts, V] at the last token."""
    model.eval()
    encoded = [x.ids for x in tokenizer.encode_batch(
        list(texts), add_special_tokens=False)]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    result = torch.empty(len(encoded), model.config.vocab_size)
    for start in range(0, len(order), batch):
        group = order[start:start + batch]
        ids, lengths = pad([encoded[i] for i in group])
        hidden = model.hidden(model.embed(ids.to(device)))
        rows = torch.arange(len(group), device=device)
        last = hidden[rows, lengths.to(device) - 1]
        result[group] = model.head(last).float().cpu()
    return result


def judge(rows, logits) -> dict:
    """Sign accuracy per domain, how often a label wins, film log loss."""
    margin = (logits[:, GOOD] - logits[:, BAD]).double()
    rating = torch.tensor([row.rating for row in rows])
    strong = rating.abs() > STRONG
    right = (margin > 0) == (rating > 0)
    is_label = (logits.argmax(-1) == GOOD) | (logits.argmax(-1) == BAD)
    report = {}
    for domain in data.DOMAINS:
        chosen = strong & torch.tensor([r.domain == domain for r in rows])
        positive = float((rating[chosen] > 0).double().mean())
        report[domain] = {
            "texts": int(chosen.sum()),
            "accuracy": round(float(right[chosen].double().mean()), 4),
            "majority": round(max(positive, 1 - positive), 4),
        }
    film = strong & torch.tensor([r.domain == "film" for r in rows])
    signed = torch.where(rating > 0, margin, -margin)[film]
    report["film_log_loss"] = round(float(F.softplus(-signed).mean()), 4)
    report["label_is_argmax"] = round(float(is_label.double().mean()), 4)
    return report


def train(settings, rows, tokenizer, device, watch=None, log=print):
    """Returns the model with its averaged parameters, in eval mode."""
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    model = mamba.Mamba(
        mamba.MambaConfig(
            tokenizer.get_vocab_size(), settings.hidden_size,
            settings.num_layers, settings.state_size,
        ),
        settings.dropout, settings.token_dropout, settings.embedding_std,
    ).to(device)
    corpus = Corpus(rows, tokenizer, settings)
    optimizer = torch.optim.AdamW(
        mamba.parameter_groups(model, settings.weight_decay),
        lr=settings.rate, betas=(0.9, 0.98), fused=device.type == "cuda",
    )
    average = mamba.Average(model, settings.average)
    per_epoch = -(-len(rows) // settings.batch)
    total, step = per_epoch * settings.epochs, 0
    for epoch in range(settings.epochs):
        model.train()
        running = torch.zeros((), device=device)
        for ids, lengths, target in corpus.batches(
                rng, settings.batch, device):
            for group in optimizer.param_groups:
                group["lr"] = mamba.rate_at(step, total, settings.rate, 200)
            loss = loss_of(
                model, ids, lengths, target, settings.next_token_weight
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update(model)
            running += loss.detach()
            step += 1
        line = f"epoch {epoch + 1}: loss {float(running) / per_epoch:.4f}"
        if watch:
            kept = [p.detach().clone() for p in model.parameters()]
            average.copy_to(model)
            found = judge(watch, last_logits(
                model, tokenizer, [r.text for r in watch], device))
            line += f" dev {json.dumps(found)}"
            with torch.no_grad():
                for p, value in zip(model.parameters(), kept):
                    p.copy_(value)
        log(line, flush=True)
    average.copy_to(model)
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=pathlib.Path,
                        default=data.default_cache(),
                        help="where the downloaded package is kept")
    parser.add_argument("--tune", action="store_true",
                        help="train without the dev part and watch it")
    parser.add_argument("--limit", type=int,
                        help="train on that many texts only (smoke test)")
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
    rows = data.load_rated(options.cache)
    parts = {"train"} if options.tune else {"train", "dev"}
    used = [row for row in rows if row.split in parts][:options.limit]
    watched = [row for row in rows if row.split == "dev"]
    held_out = [row for row in rows if row.split == "held-out"]
    tokenizer = tokens.train_bpe(
        (row.text for row in used), settings.vocab_size, SPECIAL
    )
    model = train(settings, used, tokenizer, device,
                  watched if options.tune else None)
    if options.tune:
        return
    found = judge(held_out, last_logits(
        model, tokenizer, [row.text for row in held_out], device))
    print("held-out", json.dumps(found))
    size = export.write_folder(
        options.out, model.config.to_hf(), model.state_dict(), tokenizer, "")
    print(f"{options.out}: {size} bytes")


if __name__ == "__main__":
    main()
