# SPDX-License-Identifier: Apache-2.0
"""Writes evaluation/: the held-out data that `limpid evaluate` is run on.

    python scripts/train/held_out.py --out evaluation

Sentences and word ratings come from the package that `data` reads; pictures
are composed as those that shapes-vim was trained on (`pictures`), from a seed
and photographs that training never saw.
"""

import argparse
import json
import pathlib
import re
import shutil

import numpy as np
import torch
from PIL import Image

import data
import glyphs
import pictures
import sentiment
import shapes

PICTURE_SEED = 40_000_003  # neither a training nor a judging seed
SIDE = 64                  # of the written pictures: shapes-vim's input
LEAST_RATING = 0.5         # of |mean rating|: those with a clear sentiment
WORDS = range(5, 31)       # of a sentence
LEXICON = "vaderSentiment-3.3.2/vaderSentiment/vader_lexicon.txt"


def words_of(text: str) -> list[str]:
    """Runs without white space, stripped of what is no letter or digit at
    their ends, in lower case: as `limpid evaluate lexicon` cuts them."""
    stripped = (re.sub(r"^[^0-9a-z]+|[^0-9a-z]+$", "", run.lower())
                for run in text.split())
    return [word for word in stripped if word]


def sentences(rows: list[data.Rated], count: int) -> list[data.Rated]:
    """Held-out film sentences in an order that depends on their text only."""
    fit = {row.text: row for row in rows
           if row.split == "held-out" and row.domain == "film"
           and abs(row.rating) > LEAST_RATING and row.text.isascii()
           and len(words_of(row.text)) in WORDS}
    ranked = sorted(fit.values(), key=lambda row: data.digest_of(row.text))
    return ranked[:count]


def lexicon(cache: pathlib.Path, known: set[str]) -> dict[str, float]:
    """Mean human ratings, -4 to 4, of the known words."""
    content = data.read_member(cache, LEXICON).decode("utf-8")
    rated = (line.split("\t") for line in content.splitlines() if line)
    return {word: float(mean) for word, mean, *_ in rated if word in known}


def write_text(folder: pathlib.Path, cache: pathlib.Path, count: int) -> None:
    chosen = sentences(data.load_rated(cache), count)
    with open(folder / "film-sentences.jsonl", "w", encoding="utf-8") as file:
        for row in chosen:
            label = sentiment.GOOD if row.rating > 0 else sentiment.BAD
            file.write(json.dumps({"text": row.text, "rating": row.rating,
                                   "label": label}) + "\n")
    known = {word for row in chosen for word in words_of(row.text)}
    rated = lexicon(cache, known)
    with open(folder / "word-ratings.tsv", "w", encoding="utf-8") as file:
        for word, mean in sorted(rated.items()):
            file.write(f"{word}\t{mean}\n")
    print(f"{len(chosen)} sentences, {len(rated)} of {len(known)} words rated")


def write_pictures(folder: pathlib.Path, font: pathlib.Path,
                   count: int) -> None:
    device = torch.device("cpu")
    composer = pictures.Composer(
        glyphs.load_glyphs(font), glyphs.load_photos("held-out"),
        PICTURE_SEED, device)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = glyphs.names()
    drawn = composer.draw(count)
    for number, canvas in enumerate(shapes.to_bytes(drawn.canvas)):
        label = names[int(drawn.label[number])].replace(" ", "-")
        path = folder / f"{number:03d}-{label}.png"
        Image.fromarray(canvas).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC).save(path, optimize=True)
        cover = pictures.coverage(drawn.alpha[number:number + 1], SIDE)
        mask = (cover.view(SIDE, SIDE) >= 0.5).numpy().astype(np.uint8) * 255
        Image.fromarray(mask).convert("1").save(
            path.with_suffix(".mask.png"), optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--cache", type=pathlib.Path,
                        default=data.default_cache())
    parser.add_argument("--font", type=pathlib.Path, default=glyphs.FONT)
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=100)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out, options.cache, options.sentences)
    write_pictures(options.out / "pictures", options.font, options.pictures)


if __name__ == "__main__":
    main()
