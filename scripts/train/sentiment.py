# SPDX-License-Identifier: Apache-2.0
"""Trains models/sentiment-*: a language model that ends a text with its
sentiment.

    python scripts/train/sentiment.py --family rwkv4 --out models/sentiment-rwkv4

A training sequence is the tokens of a text, then <|good|> or <|bad|>. The
label is predicted at the last token of the text, without a template, so that
an explanation of that position explains the sentiment. Raters disagree, so
the target is a probability that grows with the mean rating. The ordinary
next-token loss is added with a small weight.

Settings were chosen on the dev part (--tune trains without it and reports on
it); the committed model uses train and dev. The held-out part is looked at
once, by the check after export, which goes through the exported folder and
the published libraries and writes the card.
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
import families
import network
import tokens

SPECIAL = ["<|endoftext|>", "<|good|>", "<|bad|>"]
PAD, GOOD, BAD = 0, 1, 2
STRONG = 0.5  # |rating| above which the sign is asked for
MAX_TOKENS = 96

# What a family's model has instead of the common settings, and its sizes.
FAMILIES = {
    "mamba": dict(hidden_size=96, num_layers=2, state_size=8),
    "griffin": dict(
        hidden_size=96, num_layers=3, pattern="rra", heads=4, mlp_width=128,
        embedding_std=0.1,
    ),
    "rwkv4": dict(
        hidden_size=96, num_layers=2, mlp_width=128, embedding_std=0.1,
    ),
}

# Shown in the card: sentence and the label one would want.
SAMPLES = [
    ("A gorgeous, witty, seductive movie.", "good"),
    ("A boring, lifeless and predictable mess.", "bad"),
    ("One of the best films of the year, moving and beautifully acted.",
     "good"),
    ("The plot makes no sense and the jokes fall flat.", "bad"),
    ("I love this camera, the pictures are wonderful!", "good"),
    ("Terrible service, I want my money back.", "bad"),
    ("It is not good.", "bad"),
    ("Not bad at all, I enjoyed every minute.", "good"),
]
# Golden cases: what a tokenizer can get wrong.
PROBES = [
    "A gorgeous, witty, seductive movie.",
    "A boring, lifeless and predictable mess.",
    "it's dull; don't bother -- we've SEEN it all (twice) before...",
    "  leading, double  and trailing spaces  ",
    "First line.\nSecond line!\r\n\tThird, indented.\n",
    "Caf\u00e9, cafe\u0301 and na\u00efve \u2013 \u201cquoted\u201d\u2026",
    "Loved it \U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467!",
    "\u7d20\u6674\u3089\u3057\u3044\u6620\u753b \u0444\u0438\u043b\u044c\u043c "
    "\u0441\u0443\u043f\u0435\u0440 \u0641\u064a\u0644\u0645",
    "10/10 would pay $12.50 again, 3rd time in 2004 :-)",
    "A fine start<|endoftext|>and then <|bad|> again",
    "nul\x00byte and\u00a0no-break space",
    "x",
]


@dataclasses.dataclass(frozen=True)
class Settings:
    seed: int = 1
    vocab_size: int = 4096
    epochs: int = 16
    batch: int = 64
    rate: float = 3e-3
    weight_decay: float = 0.3
    dropout: float = 0.2
    token_dropout: float = 0.15
    split_tokens: float = 0.4   # chance that a merge is undone
    lower: float = 0.15         # chance that a text is lower-cased
    unstop: float = 0.15        # chance that the final full stop goes
    softness: float = 1.5       # target = sigmoid(softness * rating)
    next_token_weight: float = 0.1
    average: float = 0.998
    embedding_std: float = 0.02


MINUTES = {
    name: "Five minutes on an H100\nthat eleven other trainings shared."
    for name in FAMILIES
} | {"mamba": "One H100, two minutes."}


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
    label = F.log_softmax(model.logits(hidden[rows, lengths - 1]), -1)
    loss = -(target * label[:, GOOD] + (1 - target) * label[:, BAD]).mean()
    if next_token_weight > 0:
        position = torch.arange(ids.shape[1] - 1, device=ids.device)
        inside = position < (lengths - 1).unsqueeze(1)
        logits = model.logits(hidden[:, :-1])
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
        result[group] = model.logits(last).float().cpu()
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


def train(family, settings, sizes, rows, tokenizer, device, watch=None,
          log=print):
    """Returns the model with its averaged parameters, in eval mode."""
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    module = families.TEXT[family]
    model = module.Model(
        module.Config(tokenizer.get_vocab_size(), **sizes),
        settings.dropout, settings.token_dropout, settings.embedding_std,
    ).to(device)
    corpus = Corpus(rows, tokenizer, settings)
    per_epoch = -(-len(rows) // settings.batch)
    trainer = network.Trainer(model, settings, per_epoch * settings.epochs)
    for epoch in range(settings.epochs):
        model.train()
        running = torch.zeros((), device=device)
        for ids, lengths, target in corpus.batches(
                rng, settings.batch, device):
            loss = loss_of(
                model, ids, lengths, target, settings.next_token_weight
            )
            trainer.step(loss)
            running += loss.detach()
        line = f"epoch {epoch + 1}: loss {float(running) / per_epoch:.4f}"
        if watch and epoch % 4 == 3:
            kept = [p.detach().clone() for p in model.parameters()]
            trainer.average.copy_to(model)
            found = judge(watch, last_logits(
                model, tokenizer, [r.text for r in watch], device))
            line += f" dev {json.dumps(found)}"
            with torch.no_grad():
                for p, value in zip(model.parameters(), kept):
                    p.copy_(value)
        log(line, flush=True)
    trainer.average.copy_to(model)
    return model.eval()


def check(folder: pathlib.Path, family, settings, sizes, rows,
          golden) -> None:
    """Judges the exported folder and writes its card and golden cases."""
    reference = export.Reference(folder)
    texts = PROBES + [text for text, _ in SAMPLES]
    agreement = export.agreement(
        reference, families.load(folder),
        [reference.ids(text) for text in texts],
    )
    held_out = [row for row in rows if row.split == "held-out"]
    found = judge(
        held_out, reference.logits([reference.ids(r.text) for r in held_out])
    )
    print("held-out", json.dumps(found))
    sampled = []
    logits = reference.logits([reference.ids(text) for text, _ in SAMPLES])
    for (text, wanted), row in zip(SAMPLES, logits):
        margin = float(row[GOOD] - row[BAD])
        shown = "good" if margin > 0 else "bad"
        seen = sorted({r.split for r in rows if r.text == text})
        sampled.append((text, wanted, shown, margin, ", ".join(seen)))
        print(f"{shown:4} {margin:+.2f} {text}")
    (folder / "README.md").write_text(
        card(folder, family, settings, sizes, rows, found, sampled, agreement,
             reference),
        encoding="utf-8",
    )
    if golden:
        export.write_json(golden, golden_cases(reference))


def golden_cases(reference: export.Reference) -> dict:
    ids = [reference.ids(text) for text in PROBES]
    # Each alone: no padding, no batch.
    logits = [reference.logits([row])[0] for row in ids]
    return {
        "source": reference.source,
        "note": "logits at the last token; text is taken verbatim, special "
                "tokens in it are recognised, none are added",
        "good_id": GOOD,
        "bad_id": BAD,
        "logit_tolerance": export.LOGIT_TOLERANCE,
        "cases": [
            {
                "text": text,
                "ids": row,
                "good_logit": float(value[GOOD]),
                "bad_logit": float(value[BAD]),
                "argmax_id": int(value.argmax()),
            }
            for text, row, value in zip(PROBES, ids, logits)
        ],
    }


def card(folder, family, settings, sizes, rows, found, sampled, agreement,
         reference) -> str:
    config = families.load(folder).config
    tied = "tied" if config.to_hf()["tie_word_embeddings"] else "untied"
    counts = {
        name: sum(row.split == name for row in rows)
        for name in ("train", "dev", "held-out")
    }
    table = "\n".join(
        f"| {domain} | {found[domain]['texts']} "
        f"| {100 * found[domain]['accuracy']:.1f} % "
        f"| {100 * found[domain]['majority']:.1f} % |"
        for domain in data.DOMAINS
    )
    samples = "\n".join(
        f"| {text} | {shown} | {margin:+.2f} | {seen or 'no'} |"
        for text, _, shown, margin, seen in sampled
    )
    missed = sum(wanted != shown for _, wanted, shown, _, _ in sampled)
    return f"""# sentiment-{family}

A very small {families.TITLES[family]} language model that ends an English sentence with its
sentiment: at the last token of the text it predicts `<|good|>` (id {GOOD}) or
`<|bad|>` (id {BAD}). No template and no prompt around the text. It is embedded
so that explanations can be tried without a download.

- Layout: {families.PUBLISHED[family]}, {tied} head;
  {config.describe()},
  V={config.vocab_size}.
- Size: {export.describe_size(folder)}.
- Tokenizer: its own byte-level BPE in the layout of GPT-NeoX's; any UTF-8
  text can be encoded. Learnt from the training texts alone.

## Data and licence

{len(rows):,} rated texts (film-review sentences, product-review snippets,
tweets, editorial snippets) of C.J. Hutto and E. Gilbert, "VADER: A
Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text"
(ICWSM 2014), from the source package of PyPI `{data.PACKAGE}` (sha256
`{data.ARCHIVE_SHA256}`), MIT licence, copyright (c) 2016 C.J. Hutto. The
sentences themselves are not part of this folder. That package's word list was
not used, so it can serve as independent truth for token attributions. The
weights are under Apache-2.0 like the rest of this repository.

Split, by the sentence alone: h = sha256 of its word characters (NFC, case
folded, everything that matches `\\W` removed) as a big-endian integer; h mod 10
= 0 is held out ({counts['held-out']:,} texts); of the rest, (h div 10) mod 10 =
0 is dev ({counts['dev']:,}), the others are train ({counts['train']:,}).
Settings were chosen on dev; these weights were then trained once on train and
dev together.

## Training

    pip install -r scripts/train/requirements.txt
    python scripts/train/sentiment.py --family {family} --out models/sentiment-{family} --device cuda --seed {settings.seed}

Settings: {export.listed(settings, sizes, "vocab_size")}. The target at the last token is good with probability
sigmoid({settings.softness} * mean rating); the next-token loss is added with weight
{settings.next_token_weight}. Weights are a moving average over the steps. {MINUTES[family]}
GPU sums are not ordered: another run gives other weights, and accuracies
that differ by about a point.

## Held-out accuracy

Sign of the human rating against the larger of the two label logits, texts
with |mean rating| > {STRONG}, computed from this folder with {reference.source}:

| domain | texts | accuracy | majority class |
| --- | --- | --- | --- |
{table}

The highest logit of the whole vocabulary is one of the two labels at the end
of {100 * found['label_is_argmax']:.2f} % of all {counts['held-out']:,} held-out texts. Log loss on film sentences:
{found['film_log_loss']:.3f}. {agreement}

| sentence | label | good - bad | in the data |
| --- | --- | --- | --- |
{samples}

{missed} of these {len(sampled)} are wrong.

## Use and limits

For demonstrations and tests of explanations: small enough to follow, good
enough that an explanation has something to explain. It is no sentiment
product: one film sentence in five is judged wrongly; irony, comparison and
long-range negation often fail; English only; texts in training had at most
{MAX_TOKENS} tokens. Inputs without sentiment get a label as well. As a language model
it is poor: the next-token loss only shapes its features, and a label is the
likeliest continuation almost everywhere.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=pathlib.Path,
                        default=data.default_cache(),
                        help="where the downloaded package is kept")
    parser.add_argument("--tune", action="store_true",
                        help="train without the dev part, watch it, and "
                             "write nothing")
    parser.add_argument("--limit", type=int,
                        help="train on that many texts only (smoke test)")
    parser.add_argument("--no-check", action="store_true",
                        help="write the model but judge nothing")
    parser.add_argument("--check-only", action="store_true",
                        help="judge the model that --out holds")
    parser.add_argument("--golden", type=pathlib.Path,
                        help="file for the golden cases")
    export.add_settings(parser, Settings)
    options = parser.parse_args()
    settings, sizes = export.settings_from(
        options, Settings, FAMILIES[options.family])
    rows = data.load_rated(options.cache)
    if not options.check_only:
        parts = {"train"} if options.tune else {"train", "dev"}
        used = [row for row in rows if row.split in parts][:options.limit]
        tokenizer = tokens.train_bpe(
            (row.text for row in used), settings.vocab_size, SPECIAL
        )
        watch = [row for row in rows if row.split == "dev"]
        model = train(options.family, settings, sizes, used, tokenizer,
                      torch.device(options.device),
                      watch if options.tune else None)
        if options.tune:
            return
        export.write_folder(options.out, model.config.to_hf(),
                            model.state_dict(), tokenizer)
    if not options.no_check:
        check(options.out, options.family, settings, sizes, rows,
              options.golden)


if __name__ == "__main__":
    main()
