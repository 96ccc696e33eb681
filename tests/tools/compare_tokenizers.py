#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares our tokenizer with the Python package `tokenizers`.

Encodes generated texts (and those of a golden file) with both and prints every
difference; the exit status is 1 if there was one. The vocabulary is any
tokenizer.json; real ones are not kept in this repository.

    compare_tokenizers.py --tool build/bin/tokenize_lines \
        --tokenizer 20B_tokenizer.json --count 50000 [--golden FILE.jsonl]
"""

import argparse
import json
import random
import subprocess
import sys
import unicodedata

from tokenizers import Tokenizer

WORDS = """the of and to in is that it was for on are as with his they at be
this have from I'm you're we've they'll he'd it's don't 'tis O'Neil rock'n'roll
State space models 3.14159 1,000,000 2024-05-17 0x7fff x86_64 foo_bar fooBar
https://example.org/a?b=c&d=%20 e.g. i.e. U.S.A. naïve café Ångström résumé
Straße Größe œuvre Москва привет Ελλάδα αβγ שלום العربية हिन्दी தமிழ் ไทย
한국어 日本語 漢字 かな カナ 中文字符 ﬁne ² ½ Ⅷ ٣٤٥ 👍 👩‍👩‍👧‍👦 🇫🇷 ❤️ ✈ → ∑ € № … — “quoted”
def return for(i=0;i<n;i++){ } [] <br/> \\alpha #include std::vector ###""".split()

SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\u00a0", "\u2003",
          "\u3000", "\u200b", "\u2028", "\x85", "\x0b", "\x1c", " " * 24,
          " " * 25, " \n ", "\n  ", "\t\t"]

# Blocks from which single characters are drawn.
BLOCKS = [(0, 0x7F), (0x80, 0xFF), (0x100, 0x24F), (0x300, 0x36F),
          (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF),
          (0xE00, 0xFFF), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
          (0x2000, 0x20FF), (0x2100, 0x2BFF), (0x3000, 0x30FF),
          (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF),
          (0xF900, 0xFAFF), (0xFE00, 0xFFFF), (0x10000, 0x1FFFF),
          (0x20000, 0x323AF), (0xE0000, 0xE01EF), (0x300, 0x10FFFF)]


def characters(rng):
    """A character, now and then one that NFC changes."""
    low, high = rng.choice(BLOCKS)
    while True:
        char = rng.randint(low, high)
        if not 0xD800 <= char < 0xE000:
            break
    char = chr(char)
    return unicodedata.normalize("NFD", char) if rng.random() < 0.2 else char


def generate(rng, tokens):
    """One text: words, characters, marks, spaces, added tokens in any mix."""
    makers = [
        lambda: rng.choice(WORDS),
        lambda: rng.choice(WORDS) + rng.choice(SPACES),
        lambda: " " + rng.choice(WORDS),
        lambda: characters(rng),
        lambda: "".join(characters(rng) for _ in range(rng.randint(1, 8))),
        lambda: rng.choice("aeioucEUn가ㄱ\u1100\u0928\u0915")
        + "".join(chr(rng.randint(0x300, 0x345))
                  for _ in range(rng.randint(1, rng.choice([4] * 9 + [40])))),
        lambda: rng.choice(SPACES) * rng.randint(1, 4),
        lambda: " " * rng.randint(1, 60),
        lambda: "".join(rng.choice("abc'st01 .\n")
                        for _ in range(rng.randint(1, 12))),
        lambda: rng.choice("a1 .-=\n'") * rng.randint(1, 200),
    ]
    weights = [rng.random() for _ in makers]
    if tokens:
        makers.append(lambda: rng.choice(tokens))
        makers.append(lambda: rng.choice(tokens)[:-1])
        weights += [rng.random() / 2, rng.random() / 8]
    parts = rng.choices(makers, weights, k=rng.randint(1, 24))
    return "".join(make() for make in parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--golden", action="append", default=[])
    parser.add_argument("--count", type=int, default=50000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    theirs = Tokenizer.from_file(args.tokenizer)
    # Files may ask for batches to be cut or filled; one text is neither.
    theirs.no_truncation()
    theirs.no_padding()
    with open(args.tokenizer, encoding="utf-8") as file:
        added = [t["content"] for t in json.load(file)["added_tokens"]]
    rng = random.Random(args.seed)
    texts, expected = [], []
    for path in args.golden:
        with open(path, encoding="utf-8") as file:
            for line in file:
                case = json.loads(line)
                texts.append(case["text"])
                expected.append(case["ids"])
    golden = len(texts)
    texts += [generate(rng, added) for _ in range(args.count)]
    expected += [theirs.encode(t, add_special_tokens=False).ids
                 for t in texts[golden:]]

    lines = "".join(json.dumps(t) + "\n" for t in texts)
    ours = subprocess.run([args.tool, args.tokenizer], input=lines, text=True,
                          check=True, stdout=subprocess.PIPE).stdout
    ours = ours.split("\n")[:-1]
    differences = 0 if len(ours) == len(texts) else 1
    for text, ids, line in zip(texts, expected, ours):
        if " ".join(map(str, ids)) != line:
            differences += 1
            if differences <= 20:
                print(f"text   {json.dumps(text)}\nPython {ids}\nours   {line}")
    print(f"{golden} golden and {args.count} generated texts, "
          f"{sum(map(len, expected))} tokens: {differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
