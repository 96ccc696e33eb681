# SPDX-License-Identifier: Apache-2.0
"""Emoji glyphs and photographs that pictures are composed of.

Glyphs: transparent pictures in the CBDT table of Noto Color Emoji, as in
Debian's package `fonts-noto-color-emoji` 2.042-0+deb12u1 (OFL 1.1). The font
is read where it is installed and is not part of this repository.

Photographs: those in the wheel of PyPI `scikit-image` whose documentation
gives them free of rights (public domain or CC0).
"""

import hashlib
import io
import pathlib
import unicodedata

import numpy as np
from PIL import Image

FONT = pathlib.Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SHA256 = (
    "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec"
)
# One class each; the class name is Unicode's.
EMOJI = (
    "\U0001f436\U0001f431\U0001f430\U0001f98a\U0001f43c\U0001f42f\U0001f981"
    "\U0001f42e\U0001f437\U0001f438\U0001f435\U0001f414\U0001f427\U0001f989"
    "\U0001f98b\U0001f41e\U0001f422\U0001f419\U0001f433\U0001f980\U0001f420"
    "\U0001f41d\U0001f34e\U0001f34c\U0001f347\U0001f349\U0001f353\U0001f34d"
    "\U0001f34b\U0001f955\U0001f33d\U0001f344\U0001f355\U0001f354\U0001f369"
    "\U0001f382\U0001f366\U00002615\U0001f33b\U0001f339\U0001f335\U0001f332"
    "\U00002b50\U0001f525\U0001f308\U00002614\U000026bd\U0001f3c0\U0001f3be"
    "\U0001f388\U0001f381\U0001f3b8\U0001f697\U0001f6b2\U0001f680\U000026f5"
    "\U0001f682\U0001f3e0\U000023f0\U0001f511\U0001f4a1\U0001f4da\U0001f451"
    "\U0001f47b"
)
# Backgrounds in training and, never seen there, in the held-out pictures.
PHOTOS = {
    "train": ("chelsea.png", "rocket.jpg", "hubble_deep_field.jpg",
              "grass.png", "gravel.png", "astronaut.png"),
    "held-out": ("coffee.png", "brick.png"),
}


def names() -> list[str]:
    return [unicodedata.name(letter).lower() for letter in EMOJI]


def load_glyphs(font_path: pathlib.Path, size=128) -> np.ndarray:
    """[classes, 4, size, size] float32 in [0, 1], premultiplied by alpha."""
    from fontTools.ttLib import TTFont

    content = font_path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != FONT_SHA256:
        print(f"{font_path}: not the version that the models were trained "
              f"with; sha256 is {digest}", flush=True)
    font = TTFont(io.BytesIO(content))
    named = font.getBestCmap()
    strike = font["CBDT"].strikeData[0]
    result = []
    for letter in EMOJI:
        png = strike[named[ord(letter)]].imageData
        glyph = Image.open(io.BytesIO(png)).convert("RGBA")
        side = max(glyph.size)
        square = Image.new("RGBA", (side, side))
        square.paste(glyph, ((side - glyph.width) // 2,
                             (side - glyph.height) // 2))
        values = np.asarray(square, np.float32) / 255
        values[..., :3] *= values[..., 3:]
        planes = [
            np.asarray(Image.fromarray(values[..., i]).resize(
                (size, size), Image.Resampling.BOX if side > 2 * size
                else Image.Resampling.BILINEAR))
            for i in range(4)
        ]
        result.append(np.stack(planes))
    return np.stack(result).clip(0, 1)


def load_photos(part: str, folder: pathlib.Path | None = None,
                size=256) -> np.ndarray:
    """[photos, 3, size, size] float32 in [0, 1]: the largest square."""
    if folder is None:
        import skimage

        folder = pathlib.Path(skimage.__file__).parent / "data"
    result = []
    for name in PHOTOS[part]:
        photo = Image.open(folder / name).convert("RGB")
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        photo = photo.crop((left, top, left + side, top + side))
        photo = photo.resize((size, size), Image.Resampling.BICUBIC)
        result.append(np.asarray(photo, np.float32).transpose(2, 0, 1) / 255)
    return np.stack(result)
