#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares our tokenizers with the Python originals.

Encodes generated texts (and those of golden files) with both and prints every
difference; the exit status is 1 if there was one. Spans must be in order and
cover all that has tokens; where an RWKV golden file has "byte_offsets", they
must be equal. The tokenizer's kind is told by its file's name:

    *.json          byte-level BPE; package tokenizers
    *.txt           RWKV World; package rwkv, TRIE_TOKENIZER
    anything else   SentencePiece; packages sentencepiece and transformers,
                    GemmaTokenizer if it has "<bos>", LlamaTokenizer otherwise

Real vocabularies are not kept in this repository.

    compare_tokenizers.py --tool build/bin/tokenize_lines \
        --tokenizer 20B_tokenizer.json --count 50000 [--golden FILE.jsonl]
"""

import argparse
import json
import random
import subprocess
import sys
import unicodedata

END_OF_TEXT = "<|rwkv_tokenizer_end_of_text|>"

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


def byte_bpe(path):
    from tokenizers import Tokenizer
    theirs = Tokenizer.from_file(path)
    # Files may ask for batches to be cut or filled; one text is neither.
    theirs.no_truncation()
    theirs.no_padding()
    with open(path, encoding="utf-8") as file:
        added = [t["content"] for t in json.load(file)["added_tokens"]]
    return lambda t: theirs.encode(t, add_special_tokens=False).ids, added


def rwkv_world(path):
    from rwkv.rwkv_tokenizer import TRIE_TOKENIZER
    theirs = TRIE_TOKENIZER(path)

    def encode(text):
        # The original does not know its own end of text; published model
        # folders add it in front of it.
        ids = []
        for part in text.split(END_OF_TEXT):
            ids += [0] + theirs.encode(part)
        return ids[1:]

    return encode, [END_OF_TEXT, "<|endoftext|>"]


def sentencepiece(path):
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    from transformers import GemmaTokenizer, LlamaTokenizer
    with open(path, "rb") as file:
        model = sentencepiece_model_pb2.ModelProto.FromString(file.read())
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    controls = [p.piece for p in model.pieces if p.type == kinds.CONTROL]
    others = [p.piece for p in model.pieces
              if p.type in (kinds.UNKNOWN, kinds.USER_DEFINED)]
    if "<bos>" in controls:
        theirs = GemmaTokenizer(path, additional_special_tokens=controls)
    else:
        theirs = LlamaTokenizer(path, additional_special_tokens=controls,
                                legacy=True)
    # A byte piece as a user would write it is text.
    return (lambda t: theirs.encode(t, add_special_tokens=False),
            controls + others + ["<0x0A>", "\u2581", "\u2581\u2581"])


def original(path):
    """Text to ids as the original does it, and tokens to put into texts."""
    if path.endswith(".json"):
        return byte_bpe(path)
    return rwkv_world(path) if path.endswith(".txt") else sentencepiece(path)


def wrong_spans(text, spans, encode):
    """Whether spans are out of order or leave out what has tokens by itself."""
    text = text.encode()
    covered = begun = 0
    for begin, end in spans + [[len(text), len(text)]]:
        gap = text[covered:begin]
        if not begun <= begin <= end or gap and encode(gap.decode()):
            return True
        begun, covered = begin, max(covered, end)
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--golden", action="append", default=[])
    parser.add_argument("--count", type=int, default=50000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    encode, tokens = original(args.tokenizer)
    rng = random.Random(args.seed)
    texts, expected, offsets = [], [], {}
    for path in args.golden:
        with open(path, encoding="utf-8") as file:
            for line in file:
                case = json.loads(line)
                # Those of BPE leave spaces out.
                if "byte_offsets" in case and "char_offsets" not in case:
                    offsets[len(texts)] = case["byte_offsets"]
                texts.append(case["text"])
                expected.append(case["ids"])
    golden = len(texts)
    texts += [generate(rng, tokens) for _ in range(args.count)]
    expected += [encode(t) for t in texts[golden:]]

    lines = "".join(json.dumps(t) + "\n" for t in texts)
    ours = subprocess.run([args.tool, args.tokenizer, "--spans"], input=lines,
                          text=True, check=True, stdout=subprocess.PIPE).stdout
    ours = ours.split("\n")[:-1]
    differences = 0 if len(ours) == len(texts) else 1
    for i, (text, ids, line) in enumerate(zip(texts, expected, ours)):
        if line.startswith("error:"):
            our_ids, spans = None, []
        else:
            our_ids = [int(t.split(":")[0]) for t in line.split()]
            spans = [[int(n) for n in t.split(":")[1:]] for t in line.split()]
        if (our_ids != ids or wrong_spans(text, spans, encode)
                or offsets.get(i, spans) != spans):
            differences += 1
            if differences <= 20:
                print(f"text   {json.dumps(text)}\nPython {ids}\nours   {line}")
    print(f"{golden} golden and {args.count} generated texts, "
          f"{sum(map(len, expected))} tokens: {differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
