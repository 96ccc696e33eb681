#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of tests/golden/images and what they should become.

Pillow 12.1.1 (its wheel has libjpeg-turbo 3.1.3) and NumPy write

    decode/NAME.{png,jpg}   a picture, NAME.ppm what Pillow reads from it
    refuse/NAME.EXT         pictures that the server must refuse
    resize/NAME.ppm         resize/picture.png by Pillow; the name says how
    process/NAME/           a preprocessor_config.json (or none) and
                            expected.f32: the model's input, [3, H, W] float32

Later versions of Pillow resize tall pictures down before across, which rounds
differently; what models were evaluated with goes across first. The output is
the same on every run. With --torchvision every model input is also computed by
torchvision's own transforms, which must give the same bits.

    make_image_golden.py [--torchvision] tests/golden/images
"""

import io
import json
import pathlib
import shutil
import struct
import sys
import zlib

import numpy as np
import PIL
from PIL import Image, ImageCms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
FILTERS = {"bilinear": BILINEAR, "bicubic": BICUBIC}


def noise(height, width, channels=3, seed=0):
    """Smooth colours with noise on them: every filter tap matters."""
    rng = np.random.default_rng(seed)
    y, x, c = np.ogrid[:height, :width, :channels]
    smooth = 120 + 90 * np.sin(x / 7 + c) * np.cos(y / 5 - c)
    return np.clip(smooth + rng.normal(0, 45, (height, width, channels)), 0,
                   255).astype(np.uint8)


def chunk(kind, data):
    return (struct.pack(">I", len(data)) + kind + data +
            struct.pack(">I", zlib.crc32(kind + data)))


# First column, first row, and steps of the seven passes.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
         (1, 0, 2, 2), (0, 1, 1, 2))


def pack(samples, depth):
    """Rows [H, W, C] of samples with `depth` bits each, unfiltered."""
    rows = b""
    for row in samples.reshape(samples.shape[0], -1):
        if depth == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
            continue
        bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)
        rows += b"\0" + np.packbits(bits[:, 8 - depth:].ravel()).tobytes()
    return rows


def png(samples, depth, color, before=b"", interlaced=False):
    """A PNG file of integer samples [H, W, C]; `before` stands before IDAT."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0,
                         interlaced)
    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7]
        rows = b"".join(pack(part, depth) for part in passes if part.size)
    else:
        rows = pack(samples, depth)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before +
            chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def encoded(array, mode=None, **options):
    out = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image = image.convert(mode) if mode else image
    image.save(out, **options)
    return out.getvalue()


def pngs():
    rng = np.random.default_rng(7)
    rgb, rgba = noise(11, 13), noise(11, 13, 4, 1)
    grey, grey_alpha = noise(11, 13, 1, 2), noise(11, 13, 2, 3)
    few = {depth: rng.integers(0, 1 << depth, (11, 13, 1))
           for depth in (1, 2, 4, 8)}
    palette = {depth: chunk(b"PLTE", rng.bytes(3 << depth)) for depth in few}
    alphas = chunk(b"tRNS", bytes([0, 128, 255, 7]))
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by 90 degrees.
    profile = bytearray(
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())
    profile[24:36] = bytes(12)  # The time.
    yield "rgb", png(rgb, 8, 2)
    yield "rgb-filtered", encoded(rgb, format="PNG")
    yield "rgb-interlaced", png(rgb, 8, 2, interlaced=True)
    yield "rgb-transparent-colour", png(
        rgb, 8, 2, chunk(b"tRNS", struct.pack(">3H", *rgb[0, 0])))
    yield "rgb-profile", png(rgb, 8, 2, chunk(
        b"iCCP", b"lab\0\0" + zlib.compress(bytes(profile))))
    yield "rgb-gamma", png(rgb, 8, 2, chunk(b"gAMA", struct.pack(">I", 100000)))
    yield "rgb-turned", encoded(rgb, format="PNG", exif=exif)
    yield "rgba", png(rgba, 8, 6)
    yield "rgba-interlaced", png(rgba, 8, 6, interlaced=True)
    yield "grey", png(grey, 8, 0)
    yield "grey-transparent-colour", png(
        grey, 8, 0, chunk(b"tRNS", struct.pack(">H", grey[0, 0, 0])))
    yield "grey-alpha", png(grey_alpha, 8, 4)
    for depth, samples in few.items():
        if depth < 8:
            yield f"grey-{depth}-bit", png(samples, depth, 0)
        yield f"palette-{depth}-bit", png(samples, depth, 3, palette[depth])
    yield "grey-2-bit-interlaced", png(few[2], 2, 0, interlaced=True)
    yield "palette-alpha", png(few[8], 8, 3, palette[8] + alphas)
    yield "palette-4-bit-interlaced", png(few[4], 4, 3, palette[4] + alphas,
                                          interlaced=True)
    yield "palette-too-short", png(few[4], 4, 3, palette[2])
    yield "row", png(noise(1, 40), 8, 2)
    yield "column-interlaced", png(noise(40, 1), 8, 2, interlaced=True)


def jpegs():
    picture = noise(21, 27, seed=4)
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = {"format": "JPEG", "quality": 85}
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"baseline-{name}", encoded(picture, subsampling=subsampling,
                                          **jpeg)
        yield f"progressive-{name}", encoded(
            picture, subsampling=subsampling, progressive=True, **jpeg)
    yield "grey", encoded(picture, "L", **jpeg)
    yield "grey-progressive", encoded(picture, "L", progressive=True, **jpeg)
    yield "stored-as-rgb", encoded(picture, keep_rgb=True, **jpeg)
    yield "restarts", encoded(picture, restart_marker_blocks=1, **jpeg)
    yield "turned", encoded(picture, exif=exif, **jpeg)


def refused():
    deep = np.random.default_rng(8).integers(0, 1 << 16, (5, 6, 4))
    frames = [Image.fromarray(noise(5, 6, seed=s)) for s in (0, 1)]
    rgb, single = noise(5, 6), noise(1, 1)
    for name, color, channels in (("grey", 0, 1), ("rgb", 2, 3),
                                  ("grey-alpha", 4, 2), ("rgba", 6, 4)):
        yield f"16-bit-{name}.png", png(deep[..., :channels], 16, color)
    yield "animated.png", encoded(frames[0], format="PNG", save_all=True,
                                  append_images=frames[1:])
    yield "cmyk.jpg", encoded(rgb, "CMYK", format="JPEG")
    yield "one-pixel.png", encoded(single, format="PNG")
    yield "one-pixel.jpg", encoded(single, format="JPEG")
    for extension in ("GIF", "WebP", "BMP", "TIFF", "AVIF"):
        yield f"other.{extension.lower()}", encoded(rgb, format=extension)


def center_crop(picture, height, width):
    """torchvision's CenterCrop: pad with zeros, then round half to even."""
    def place(size, crop):
        if size < crop:
            return (crop - size) // 2, 0
        return 0, round((size - crop) / 2)
    (pad_y, top), (pad_x, left) = (place(picture.height, height),
                                   place(picture.width, width))
    canvas = np.zeros((max(picture.height, height), max(picture.width, width),
                       3), np.uint8)
    canvas[pad_y:pad_y + picture.height, pad_x:pad_x + picture.width] = picture
    return canvas[top:top + height, left:left + width]


def shorter_side(size):
    """torchvision's Resize of one number."""
    def to(width, height):
        short, long = sorted((width, height))
        other = int(size * long / short)
        return (size, other) if width <= height else (other, size)
    return to


def cover(rows, columns):
    """Ours, for models that are not square."""
    def to(width, height):
        if width * rows >= height * columns:
            return int(rows * width / height), rows
        return columns, int(columns * height / width)
    return to


def normalised(crop, mean=MEAN, std=STD):
    values = crop.astype(np.float32) / np.float32(255)
    return (values - np.float32(mean)) / np.float32(std)


# Model's height and width, the picture, the file, how it is resized (None: it
# isn't), whether it is cropped, mean and deviation (None: not normalised).
HALF = (0.5, 0.5, 0.5)
PROCESS = {
    "default-wide": (24, 24, "wide", None, cover(27, 27), BICUBIC, True,
                     (MEAN, STD)),
    "default-tall": (24, 24, "tall", None, cover(27, 27), BICUBIC, True,
                     (MEAN, STD)),
    "default-wide-model": (20, 36, "wide", None, cover(22, 41), BICUBIC, True,
                           (MEAN, STD)),
    "default-tall-model": (36, 20, "wide", None, cover(41, 22), BICUBIC, True,
                           (MEAN, STD)),
    "vit": (24, 24, "wide", {
        "image_processor_type": "ViTImageProcessor", "do_resize": True,
        "size": {"height": 24, "width": 24}, "resample": 2, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": HALF, "image_std": HALF}, lambda w, h: (24, 24), BILINEAR,
            False, (HALF, HALF)),
    "deit": (24, 24, "tall", {
        "feature_extractor_type": "DeiTFeatureExtractor", "do_resize": True,
        "size": 28, "resample": 3, "do_center_crop": True, "crop_size": 24,
        "do_normalize": True, "image_mean": MEAN, "image_std": STD},
             lambda w, h: (28, 28), BICUBIC, True, (MEAN, STD)),
    "shortest-edge": (24, 24, "wide", {
        "size": {"shortest_edge": 25}, "resample": 2, "do_center_crop": True,
        "crop_size": {"height": 24, "width": 24}, "image_mean": MEAN,
        "image_std": STD}, shorter_side(25), BILINEAR, True, (MEAN, STD)),
    "padded": (24, 24, "tall", {"size": {"shortest_edge": 17}},
               shorter_side(17), BICUBIC, True, (MEAN, STD)),
    "crop-only": (24, 24, "wide", {"do_resize": False, "do_normalize": False},
                  None, None, True, None),
    "every-value": (16, 16, "ramp", {"do_resize": False}, None, None, True,
                    (MEAN, STD)),
}


def model_input(picture, case):
    height, width, _, _, to, resample, crop, normal = case
    if to:
        picture = picture.resize(to(*picture.size), resample)
    array = center_crop(picture, height, width) if crop else np.array(picture)
    values = (normalised(array, *normal) if normal else
              array.astype(np.float32) / np.float32(255))
    return values.transpose(2, 0, 1)


def by_torchvision(picture, case):
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode
    height, width, _, _, to, resample, crop, normal = case
    steps = []
    if to:
        new_width, new_height = to(*picture.size)
        mode = {BILINEAR: InterpolationMode.BILINEAR,
                BICUBIC: InterpolationMode.BICUBIC}[resample]
        # Torchvision has the shorter side only, and so for square models.
        by_side = height == width and to(41, 40) != to(40, 40)
        steps.append(transforms.Resize(
            to(40, 40)[0] if by_side else (new_height, new_width), mode))
    if crop:
        steps.append(transforms.CenterCrop((height, width)))
    steps.append(transforms.ToTensor())
    if normal:
        steps.append(transforms.Normalize(*normal))
    return transforms.Compose(steps)(picture).numpy()


def main():
    arguments = sys.argv[1:]
    check = "--torchvision" in arguments
    root = pathlib.Path(arguments[-1])
    for name in ("decode", "refuse", "resize", "process"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)

    for extension, pictures in (("png", pngs()), ("jpg", jpegs())):
        for name, data in pictures:
            stem = f"{extension}-{name}"
            (root / f"decode/{stem}.{extension}").write_bytes(data)
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            picture.save(root / f"decode/{stem}.ppm")
    for name, data in refused():
        (root / f"refuse/{name}").write_bytes(data)

    source = Image.fromarray(noise(47, 61, seed=5))
    source.save(root / "resize/picture.png")
    for size in ((61, 47), (20, 31), (61, 13), (9, 47), (83, 58), (7, 60),
                 (90, 5), (1, 1), (64, 2)):
        for name, resample in FILTERS.items():
            out = source.resize(size, resample)
            out.save(root / f"resize/{name}-{size[0]}x{size[1]}.ppm")

    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    for name, array in (("wide", noise(47, 61, seed=5)),
                        ("tall", noise(52, 33, seed=6)), ("ramp", ramp)):
        Image.fromarray(array).save(root / f"process/{name}.png")
    for name, case in PROCESS.items():
        folder = root / "process" / name
        folder.mkdir()
        if case[3] is not None:
            text = json.dumps(case[3], indent=2)
            (folder / "preprocessor_config.json").write_text(text + "\n")
        picture = Image.open(root / f"process/{case[2]}.png").convert("RGB")
        values = model_input(picture, case)
        assert values.shape == (3, case[0], case[1]), name
        if check:
            assert (values == by_torchvision(picture, case)).all(), name
        (folder / "expected.f32").write_bytes(values.astype("<f4").tobytes())


if __name__ == "__main__":
    assert PIL.__version__ == "12.1.1", PIL.__version__
    main()
