# SPDX-License-Identifier: Apache-2.0
"""Small byte-level BPE tokenizers, laid out like GPT-NeoX's tokenizer.json."""

import json
import pathlib

from tokenizers import Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers


def train_bpe(texts, vocab_size: int, special: list[str]) -> Tokenizer:
    """Learns merges; ids: special tokens, the 256 bytes, then the merges."""
    tokenizer = _with_byte_level(Tokenizer(models.BPE()))
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return tokenizer


def single_characters(characters: str, special: list[str]) -> Tokenizer:
    """A vocabulary of the given ASCII characters alone, without merges."""
    names = special + list(characters)
    vocab = {name: index for index, name in enumerate(names)}
    tokenizer = _with_byte_level(Tokenizer(models.BPE(vocab, [])))
    tokenizer.add_special_tokens(special)
    return tokenizer


def save(tokenizer: Tokenizer, path: pathlib.Path) -> None:
    """Writes tokenizer.json, merges as "left right" like published files."""
    layout = json.loads(tokenizer.to_str())
    model = layout["model"]
    model["merges"] = [
        x if isinstance(x, str) else " ".join(x) for x in model["merges"]
    ]
    # The library cannot be told so; without effect on decoding.
    layout["decoder"]["add_prefix_space"] = False
    path.write_text(
        json.dumps(layout, ensure_ascii=False, indent=1) + "\n",
        encoding="utf-8",
    )


def merge_parents(tokenizer: Tokenizer) -> dict[int, tuple[int, int]]:
    """Id of each merged token -> ids of the two tokens it is made of."""
    model = json.loads(tokenizer.to_str())["model"]
    vocab = model["vocab"]
    parents = {}
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        parents.setdefault(vocab[left + right], (vocab[left], vocab[right]))
    return parents


def _with_byte_level(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(
        add_prefix_space=False, trim_offsets=True
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
