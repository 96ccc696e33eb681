#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tokenizers of tests/golden/tokenizers and what they should say.

Trains small tokenizers and writes, for each, the tokenizer's file and
NAME.jsonl: one text with its ids per line, as the Python original encodes it.
The output is the same on every run.

    NAME.json    byte-level BPE: tokenizers 0.22.2
    NAME.txt     RWKV World: rwkv 0.8.32 (needs nothing of what it depends on)
    NAME.model   SentencePiece: sentencepiece 0.2.3, transformers 4.57.1

    make_tokenizer_golden.py tests/golden/tokenizers
"""

import io
import json
import pathlib
import random
import sys
import tempfile

import sentencepiece as spm
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,
                        normalizers, pre_tokenizers, trainers)

from compare_tokenizers import generate, original

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


def make_byte_bpe(folder):
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
        tokens = [t.content for t in tok.get_added_tokens_decoder().values()]
        write_cases(folder, name, tokens, 330,
                    lambda t: tok.encode(t, add_special_tokens=False).ids)


# Python's ways to write a token down: as the published file has them, and as it
# might.
LITERALS = r'''
'\u00e9t\u00e9'
'\N{SNOWMAN}\N{latin small letter sharp s}'
'\101\102\7'
b'\346\x97'
'\U0001f44d'
r'\d'
r'\'\"'
"don't"
'"\''
u'\x41\x5A'
B"\a\b\f\v\t\n\r"
'\q\('
b'\N{x}\u0041'
'日本'
rb'\x00'
'\777'
'\\\\'
'''.strip().splitlines()


def make_rwkv_world(folder):
    tokens = [bytes([byte]) for byte in range(256)]
    for word in TEXT.split():
        tokens += [word.encode(), b" " + word.encode()]
    tokens += [char.encode()[:2] for char in TEXT]  # Cut characters.
    tokens += [b" " * n for n in range(2, 17)] + [b"\n" * n for n in (2, 3, 7)]
    literals = []
    for token in dict.fromkeys(tokens):
        try:
            literals.append(repr(token.decode()))
        except UnicodeDecodeError:
            literals.append(repr(token))
    lines, seen = [], set()
    for literal in literals + LITERALS:
        token = eval(literal)  # As the original does.
        token = token.encode() if isinstance(token, str) else token
        if token not in seen:
            seen.add(token)
            lines.append(f"{len(seen)} {literal} {len(token)}\r\n")
    path = folder / "tiny-rwkv-world.txt"
    path.write_bytes("".join(lines).encode())
    encode, specials = original(str(path))
    write_cases(folder, "rwkv-world", specials, 240, encode)


def train(folder, name, unused=(), **options):
    """Trains a SentencePiece model; gives the type `unused` to some pieces."""
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=out,
        model_type="bpe", hard_vocab_limit=False, num_threads=1,
        minloglevel=2, **options)
    model = sentencepiece_model_pb2.ModelProto.FromString(out.getvalue())
    model.normalizer_spec.normalization_rule_tsv = ""  # A path of this machine.
    for piece in model.pieces:
        if piece.piece in unused:
            piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.UNUSED
    path = folder / f"tiny-{name}.model"
    path.write_bytes(model.SerializeToString(deterministic=True))
    encode, specials = original(str(path))
    write_cases(folder, name, specials, 240, encode)


# Ligature, full width, fraction, ideographic and zero width space, accents in
# two orders, a character that vanishes, one that becomes spaces, one longer.
RULES = """FB01\t66 69
FF21\t41
BD\t31 2044 32
3000\t20
200B\t20
65 301\tE9
65 301 323\t1EB9 301
7F\t
2003\t20 20
2026\t2E 2E 2E
9\t20
"""


def make_sentencepiece(folder):
    # As Gemma is published.
    train(folder, "gemma", vocab_size=700, byte_fallback=True,
          add_dummy_prefix=False, remove_extra_whitespaces=False,
          normalization_rule_name="identity", split_digits=True,
          allow_whitespace_only_pieces=True, pad_id=0, eos_id=1, bos_id=2,
          unk_id=3, pad_piece="<pad>", bos_piece="<bos>", eos_piece="<eos>",
          user_defined_symbols=["<mask>", "<start_of_turn>", "<end_of_turn>",
                                "\n", "\n\n", "\u2581\u2581",
                                "\u2581\u2581\u2581\u2581"])
    # As Llama and Mistral are.
    train(folder, "llama", vocab_size=600, byte_fallback=True,
          remove_extra_whitespaces=False, normalization_rule_name="identity",
          control_symbols=["[INST]", "[/INST]"])
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write(RULES)
        rules.flush()
        # Everything that changes a text; characters that are not known.
        train(folder, "mapped", vocab_size=400, normalization_rule_tsv=rules.name,
              user_defined_symbols=["<\ufb01>", "the"],
              unused=["\u2581w", "in", "at", "or", "igh", "\u2581st", "\u2581i"])
        train(folder, "suffix", vocab_size=400, normalization_rule_tsv=rules.name,
              treat_whitespace_as_suffix=True,
              unused=["th", "at", "er", "the\u2581", "ight"])


def write_cases(folder, name, tokens, count, encode):
    """`count` texts, some of them with `tokens` inside, and their ids."""
    rng = random.Random(name)
    texts = HAND_WRITTEN + [line for line in TEXT.splitlines() if line]
    while len(texts) < count:
        text = generate(rng, tokens)
        if len(text) <= 120:
            texts.append(text)
    with open(folder / f"tiny-{name}.jsonl", "w", encoding="utf-8") as file:
        for text in texts:
            case = {"text": text, "ids": encode(text)}
            file.write(json.dumps(case, separators=(",", ":")) + "\n")
    print(f"tiny-{name}: {len(texts)} texts")


def main():
    folder = pathlib.Path(sys.argv[1])
    make_byte_bpe(folder)
    make_rwkv_world(folder)
    make_sentencepiece(folder)


if __name__ == "__main__":
    assert tokenizers.__version__ == "0.22.2", tokenizers.__version__
    assert spm.__version__ == "0.2.3", spm.__version__
    main()
