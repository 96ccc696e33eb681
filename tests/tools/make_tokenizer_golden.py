#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tokenizers of tests/golden/tokenizers and what they should say.

Trains small byte-level BPE tokenizers with the Python package `tokenizers`
(0.22.2) and writes, for each, NAME.json and NAME.jsonl: one text with its ids
per line, as that package encodes it. The output is the same on every run.

    make_tokenizer_golden.py tests/golden/tokenizers
"""

import json
import pathlib
import random
import sys

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,
                        normalizers, pre_tokenizers, trainers)

from compare_tokenizers import generate

TEXT = """
The river rose in the night, and by the morning the lower meadow was a lake.
We took the small boat from the barn and went to see what was left of the fence.
"I'm sure we've lost the hens," she said, "but they're birds; they'll have found
a branch." It wasn't so. The hens sat in a row on the roof of their own house,
and didn't look at us. He'd counted them twice before he was content: 12, then 12.
A state space model reads its input once, from left to right, and keeps a state
of fixed size. What it has read is in the state or it is lost. An explanation of
its output says which of the inputs the state still spoke of, and how loudly.
for (int i = 0; i < 10; ++i) {
    sum += weights[i] * inputs[i];
    if (sum > 1.5) { return sum; }
}
def attention(query, keys):
    scores = [dot(query, key) for key in keys]
        # twelve spaces stand before this line's neighbour
            return softmax(scores)
Im Sommer fließt das Wasser über die Wiesen; später, im Herbst, wird es kühler.
L'été, l'eau coule à travers les prés; à l'automne, il fait déjà plus frais.
Летом вода течёт по лугам, а осенью становится холоднее.
το καλοκαίρι το νερό κυλά στα λιβάδια
夏になると水が草原を流れ、秋には涼しくなる。 夏天水流过草地,秋天变凉。
여름에는 물이 풀밭을 흐르고 가을에는 서늘해진다.
1 22 333 4444 1999 2024 3.14159 100,000 0x1f x86_64 50% $20 #7 a+b=c https://example.org/
"""

HAND_WRITTEN = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\x00",
    "a\x00b", "\x00\x00 \x00", "\x01\x1f\x7f\x80\x85\x9f", "Hello", " Hello",
    "Hello, world!", "The river rose in the night.", "a  b   c    d     e",
    "trailing spaces   ", "   leading", " \n x", "\n  x", "x \n", "x\n\n\ny",
    "I'm you're we've they'll he'd it's don't", "I'M DON'T 's't''s", "'s", "'",
    " 's", "''ll", "'sample", "o'clock 'tis rock'n'roll", "it\u2019s",
    "12345 1 22 333", "a1b2c3", "½ ² Ⅷ ٣٤٥ 一二三", "3.14e-10", "1,000,000",
    "caf\u00e9", "cafe\u0301", "e\u0301\u0323", "e\u0323\u0301", "\u0301",
    "\u1e9b\u0323", "A\u030a \u212b \u00c5", "\u1112\u1161\u11ab",
    "\uac00\u11a8", "\u0915\u093c", "\u0958", "q\u0307\u0323" * 20,
    "a" + "\u0301\u0316" * 50, "\u09c7\u09be", "\ufb01 \u2126 \u2460",
    "\U0001f44d", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "🇫🇷🇩🇪",
    "❤️ ✈︎", "👍🏽", "\U00010348", "日本語の文章です。", "中文 字符",
    "한국어 문장", "שלום עולם", "مرحبا بالعالم", "\u202eabc\u202c",
    "\u200e\u200f\u200b\u2060\ufeff", "हिन्दी", "ไทย", "ελληνικά", "Привет, мир",
    "<|endoftext|>", "<|endoftext|><|endoftext|>", "a<|endoftext|>b",
    " <|endoftext|> ", "<|endoftext|", "<<|endoftext|>>", "<|padding|>x",
    "<|ENDOFTEXT|>", "e<|endoftext|>\u0301", "\n<|endoftext|>\n",
    "<mark>", "a <mark> b", "a  <left>b", "a<right>  b", "a  <both>  b",
    "<right>   <left>", "<right>  <right>", "word wordy sword word.",
    "word", "_word_", "éword wordé", "one word more", "nfc\u00e9", "nfce\u0301",
    " " * 23, " " * 24, " " * 25, " " * 47, " " * 100, "x" + " " * 30 + "y",
    "\t" * 9, "\n" * 40, " \t" * 10, "a" * 300, "ab" * 150, "1" * 77,
    "." * 99, "-" * 64 + "\n", "=" * 33, "\u3042" * 60, "\U0001f600" * 21,
    "if (a[i] != b) {\n        return -1;\n    }\n", "<html>\n  <p>x</p>\n</html>",
    "C:\\temp\\new", "\\n\\t\\\"", "user@example.org #tag @you", "\ud7a3\uffff",
    "\U000e0041\U0010ffff", "\u1c89\U000105c0 \U0002ebf0", "\U00011f41x\u0334",
    "x\u0301\U00011070y", "ꟊ꟱", "\u180e\u2028\u2029x\u205f", "\x1c\x1d\x1e\x1f a",
]


def added(content, **flags):
    return AddedToken(content, **{"normalized": False, **flags})


def neox():
    """As GPT-NeoX publishes it: NFC, runs of spaces as tokens after it."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = [added("<|endoftext|>", special=True),
                added("<|padding|>", special=True)]
    spaces = [added(" " * n, normalized=True) for n in range(24, 1, -1)]
    return tok, specials, spaces


def flags():
    """Every flag of added tokens, a space before each part."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.Sequence([normalizers.NFC()])
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    specials = [added("<|endoftext|>", special=True)]
    others = [added("<mark>", special=True, normalized=True),
              added("<left>", lstrip=True), added("<right>", rstrip=True),
              added("<both>", lstrip=True, rstrip=True, normalized=True),
              added("word", single_word=True), added("wordy"),
              added("nfce\u0301", normalized=True), added("  "),
              added("\n\n", normalized=True)]
    return tok, specials, others


def split():
    """Split by expressions before the bytes; whole words win over merges."""
    tok = Tokenizer(models.BPE(ignore_merges=True))
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
               r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("->", "removed"),
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tok, [added("<|endoftext|>", special=True)], [added("<mark>")]


def dump(path, tok, string_merges):
    model = json.loads(tok.to_str())
    if string_merges:  # The spelling of older files.
        merges = model["model"]["merges"]
        model["model"]["merges"] = [" ".join(pair) for pair in merges]
    text = json.dumps(model, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return Tokenizer.from_str(text)


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, make, size in (("neox", neox, 600), ("flags", flags, 400),
                             ("split", split, 500)):
        tok, specials, others = make()
        tok.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=specials, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        tok.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
        tok.add_tokens(others)
        tok = dump(folder / f"tiny-{name}.json", tok,
                   string_merges=name == "neox")

        rng = random.Random(name)
        tokens = [t.content for t in tok.get_added_tokens_decoder().values()]
        texts = HAND_WRITTEN + [line for line in TEXT.splitlines() if line]
        while len(texts) < 330:
            text = generate(rng, tokens)
            if len(text) <= 120:
                texts.append(text)
        with open(folder / f"tiny-{name}.jsonl", "w", encoding="utf-8") as file:
            for text in texts:
                ids = tok.encode(text, add_special_tokens=False).ids
                case = {"text": text, "ids": ids}
                file.write(json.dumps(case, separators=(",", ":")) + "\n")
        print(f"tiny-{name}: {tok.get_vocab_size()} tokens, {len(texts)} texts")


if __name__ == "__main__":
    assert tokenizers.__version__ == "0.22.2", tokenizers.__version__
    main()
