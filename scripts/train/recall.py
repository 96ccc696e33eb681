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
import json
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
HELD_OUT_SEED = 20_000_011  # never a training seed
METHODS = {
    "input-x-gradient": attribution.input_x_gradient,
    "integrated-gradients": attribution.integrated_gradients,
    "raw-attention": lambda model, ids, _: attribution.raw_attention(
        model, ids),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    seed: int = 1
    hidden_size: int = 48
    num_layers: int = 1
    state_size: int = 16
    conv_kernel: int = 4
    least_pairs: int = 4
    most_pairs: int = 8
    steps: int = 6000
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


def check(folder: pathlib.Path, settings: Settings, golden) -> None:
    """Judges the exported folder and writes its card and golden cases."""
    reference = export.Reference(folder)
    model = export.load_folder(folder)
    groups = held_out(settings, 1000)
    worst = export.assert_same_logits(
        reference, model,
        [row for cases in groups for row in cases.ids[:20].tolist()],
    )
    right = 0
    for cases in groups:
        texts = [text_of(row) for row in cases.ids]
        logits = reference.logits([reference.ids(text) for text in texts])
        right += int((logits.argmax(-1) == cases.answer).sum())
    found = judge(model, groups, torch.device("cpu"))
    # Accuracy as users get it: through text, tokenizer and reference.
    found["accuracy"] = round(right / found["cases"], 4)
    print("held-out", json.dumps(found))
    (folder / "README.md").write_text(
        card(folder, settings, found, worst, reference), encoding="utf-8")
    if golden:
        export.write_json(golden, golden_cases(settings, reference))


def golden_cases(settings: Settings, reference: export.Reference) -> dict:
    spread = settings.most_pairs - settings.least_pairs + 1
    result = []
    for cases in held_out(settings, 200 // spread):
        for row, answer, key_at in zip(
                cases.ids, cases.answer.tolist(), cases.key_at.tolist()):
            text = text_of(row)
            ids = reference.ids(text)
            logits = reference.logits([ids])[0]
            result.append({
                "text": text,
                "ids": ids,
                "target_id": answer,
                "truth_positions": [key_at + 1, key_at],
                "target_logit": float(logits[answer]),
                "argmax_id": int(logits.argmax()),
            })
    return {
        "source": reference.source,
        "note": "ids, logits and argmax come from the source; target and "
                "truth from the generator. truth_positions: the queried "
                "pair's value token, then its key token. The last token (the "
                "query) is no candidate.",
        "logit_tolerance": export.LOGIT_TOLERANCE,
        "cases": result,
    }


def card(folder, settings, found, worst, reference) -> str:
    config = json.loads((folder / "config.json").read_text())
    table = "\n".join(
        f"| {name} | {100 * rate:.1f} % |"
        for name, rate in found.items() if name not in ("cases", "accuracy")
    )
    options = ", ".join(
        f"{name}={value}"
        for name, value in dataclasses.asdict(settings).items()
    )
    return f"""# recall-mamba

A tiny Mamba that recalls the value of a key, so that the tokens it has to look
at are known and attributions can be judged.

A text lists {settings.least_pairs} to {settings.most_pairs} pairs of a key (letter a-z) and a value (digit 0-9),
keys and values each distinct, in random order and without spaces, and ends
with one of the keys: after `k3f7a1b9f` comes `7`.

**Truth**: the value token of the queried pair or its key token. The query
itself, the last token, is no candidate.

- Layout: Hugging Face `MambaForCausalLM`, tied head;
  E={config['hidden_size']}, {config['num_hidden_layers']} layer, D={config['intermediate_size']}, N={config['state_size']}, K={config['conv_kernel']},
  V={config['vocab_size']} (`<|endoftext|>`, digits, letters).
- Size: {export.describe_size(folder)}.
- Tokenizer: layout of a byte-level BPE without merges; its vocabulary holds
  the needed characters alone, others cannot be encoded.
- Data: generated, no source and no licence of others; weights Apache-2.0.

## Training

    pip install -r scripts/train/requirements.txt
    python scripts/train/recall.py --out models/recall-mamba --device cuda --seed {settings.seed}

Settings: {options}. Training lists have 1 to {settings.most_pairs} pairs, and go on
with all other keys and their values in a new order; the loss is the answer's
cross-entropy at every queried key. About a minute on an H100. GPU sums are not
ordered: another run gives other weights; attribution rates moved by about a
point between two runs.

## Held-out figures

{found['cases']:,} sequences of {settings.least_pairs} to {settings.most_pairs} pairs (1,000 of each length), generator seed
{HELD_OUT_SEED}, used neither in training nor in choosing this model. Accuracy (argmax over the
vocabulary, by {reference.source}): **{100 * found['accuracy']:.2f} %**.
The training implementation and the reference agree on logits to {worst:.1e}.

How often the top token among all but the query is right, explaining the
predicted token's logit at the last position (abs: largest magnitude, signed:
largest value):

| attribution | right |
| --- | --- |
{table}

input-x-gradient is the sum over E of e * d logit / d e; integrated-gradients
takes the zero baseline and 64 nodes t = u^3 at midpoints u; raw-attention is the last row of the
implicit attention (recurrence, skip, convolution, activation and gate) with
|.| averaged over channels and layers.

The loss asks for none of these rates, but the design was chosen with them in
view, on other seeds: three models of two layers were as accurate, with
78-99 % for integrated-gradients and 10-66 % for raw-attention. One layer keeps
the route from pair to answer short. Half the steps, without short lists, gave
one layer 98 % for integrated-gradients and 16 % for raw-attention: accuracy
alone does not make raw attention point at the pair.

## Use and limits

For tests and demonstrations of attributions. It knows this one format; on
other text its output means nothing.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-check", action="store_true",
                        help="write the model but judge nothing")
    parser.add_argument("--check-only", action="store_true",
                        help="judge the model that --out holds")
    parser.add_argument("--golden", type=pathlib.Path,
                        help="file for the golden cases")
    export.add_settings(parser, Settings)
    options = parser.parse_args()
    settings = export.settings_from(options, Settings)
    if not options.check_only:
        tokenizer = tokens.single_characters(DIGITS + LETTERS, SPECIAL)
        model = train(settings, torch.device(options.device))
        export.write_folder(options.out, model.config.to_hf(),
                            model.state_dict(), tokenizer)
    if not options.no_check:
        check(options.out, settings, options.golden)


if __name__ == "__main__":
    main()
