# SPDX-License-Identifier: Apache-2.0
"""Pictures with one emoji at a random place and size, and its exact mask.

Everything is drawn in batches with torch on a canvas of twice the model's
picture, then shrunk bicubically with anti-aliasing, as the server's
preparation does with larger pictures.
"""

import dataclasses
import math

import torch
from torch.nn import functional as F

CANVAS = 128
LEAST, MOST = 44, 100      # the glyph's side on the canvas
TURN = math.radians(15)
KINDS = 8


@dataclasses.dataclass
class Pictures:
    canvas: torch.Tensor  # [B, 3, 128, 128] in [0, 1]
    alpha: torch.Tensor   # [B, 128, 128] in [0, 1]: how much of it is glyph
    label: torch.Tensor   # [B]


class Composer:
    """Draws from its own generator: the same seed, the same pictures (on the
    same kind of device)."""

    def __init__(self, glyphs, photos, seed: int, device):
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)
        # Two resolutions, so that small glyphs are not picked apart.
        self.large = torch.as_tensor(glyphs, device=device)
        self.small = F.interpolate(
            self.large, scale_factor=0.5, mode="bilinear", antialias=True)
        self.photos = torch.as_tensor(photos, device=device)
        steps = (torch.arange(CANVAS, device=device) + 0.5) * 2 / CANVAS - 1
        self.y, self.x = torch.meshgrid(steps, steps, indexing="ij")

    def uniform(self, *shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(
            *shape, generator=self.generator, device=self.device)

    def whole(self, limit: int, count: int):
        return torch.randint(limit, (count,), generator=self.generator,
                             device=self.device)

    def draw(self, count: int) -> Pictures:
        back = self.backgrounds(count)
        label = self.whole(len(self.large), count)
        glyph = self.place(label)
        alpha = glyph[:, 3:]
        light = self.uniform(count, 1, 1, 1, low=0.8, high=1.15)
        canvas = back * (1 - alpha) + glyph[:, :3] * light
        grain = torch.randn(canvas.shape, generator=self.generator,
                            device=self.device)
        canvas = canvas + grain * self.uniform(count, 1, 1, 1, high=0.04)
        return Pictures(canvas.clamp(0, 1), alpha[:, 0], label)

    def place(self, label):
        """[B, 4, 128, 128]: each glyph whole within the canvas."""
        count = len(label)
        size = self.uniform(count, low=LEAST, high=MOST) / CANVAS
        room = 1 - size
        at_x = self.uniform(count, low=-1, high=1) * room
        at_y = self.uniform(count, low=-1, high=1) * room
        turn = self.uniform(count, low=-TURN, high=TURN)
        cos, sin = (torch.cos(turn) / size), (torch.sin(turn) / size)
        theta = torch.stack([
            torch.stack([cos, sin, -(cos * at_x + sin * at_y)], 1),
            torch.stack([-sin, cos, -(-sin * at_x + cos * at_y)], 1),
        ], 1)
        grid = F.affine_grid(theta, (count, 4, CANVAS, CANVAS),
                             align_corners=False)
        large = F.grid_sample(self.large[label], grid, align_corners=False)
        small = F.grid_sample(self.small[label], grid, align_corners=False)
        near = (size * CANVAS > 72).view(-1, 1, 1, 1)
        return torch.where(near, large, small)

    def backgrounds(self, count: int):
        """[B, 3, 128, 128]; kinds in equal parts, in random order."""
        makers = (self.flat, self.gradient, self.stripes, self.clouds,
                  self.checks, self.discs, self.photo, self.photo)
        share = -(-count // KINDS)
        parts = torch.cat([maker(share) for maker in makers])
        order = torch.rand(len(parts), generator=self.generator,
                           device=self.device).argsort()
        return parts[order[:count]]

    def colours(self, count: int):
        return self.uniform(count, 3, 1, 1)

    def blend(self, share, count: int):
        """share [B, 1, 128, 128] in [0, 1] between two random colours."""
        return (self.colours(count) * share
                + self.colours(count) * (1 - share))

    def along(self, count: int):
        """A coordinate in a random direction, [B, 1, 128, 128]."""
        angle = self.uniform(count, 1, 1, 1, high=2 * math.pi)
        return self.x * torch.cos(angle) + self.y * torch.sin(angle)

    def flat(self, count):
        return self.colours(count).expand(-1, -1, CANVAS, CANVAS)

    def gradient(self, count):
        return self.blend((self.along(count) / 2.8 + 0.5).clamp(0, 1), count)

    def stripes(self, count):
        wave = torch.sin(self.along(count)
                         * self.uniform(count, 1, 1, 1, low=5, high=50)
                         + self.uniform(count, 1, 1, 1, high=6))
        hard = self.uniform(count, 1, 1, 1, low=0.5, high=8)
        return self.blend(torch.sigmoid(wave * hard), count)

    def clouds(self, count):
        total = 0.0
        for cells in (3, 6, 12, 32):
            noise = self.uniform(count, 3, cells, cells, low=-0.5, high=0.5)
            total = total + F.interpolate(
                noise, (CANVAS, CANVAS), mode="bicubic",
                align_corners=False) * self.uniform(count, 1, 1, 1)
        return (self.colours(count) + total).clamp(0, 1)

    def checks(self, count):
        pitch = self.uniform(count, 1, 1, 1, low=6, high=30)
        angle = self.uniform(count, 1, 1, 1, high=math.pi)
        cos, sin = torch.cos(angle), torch.sin(angle)
        cells = (torch.sin((self.x * cos + self.y * sin) * pitch)
                 * torch.sin((self.y * cos - self.x * sin) * pitch))
        return self.blend((cells > 0).float(), count)

    def discs(self, count):
        """Ellipses of random colours: things that are no emoji."""
        canvas = self.flat(count)
        for _ in range(5):
            across = self.x - self.uniform(count, 1, 1, 1, low=-1, high=1)
            down = self.y - self.uniform(count, 1, 1, 1, low=-1, high=1)
            size = self.uniform(count, 2, 1, 1, low=0.1, high=0.6)
            inside = ((across / size[:, :1]).square()
                      + (down / size[:, 1:]).square() < 1)
            canvas = torch.where(inside, self.colours(count), canvas)
        return canvas

    def photo(self, count):
        """A random part of a photograph, colours and sides exchanged."""
        which = self.whole(len(self.photos), count)
        scale = self.uniform(count, low=0.25, high=0.9)
        flip = self.whole(2, count) * 2 - 1
        zero = torch.zeros_like(scale)
        theta = torch.stack([
            torch.stack([scale * flip, zero,
                         self.uniform(count, low=-1, high=1) * (1 - scale)],
                        1),
            torch.stack([zero, scale,
                         self.uniform(count, low=-1, high=1) * (1 - scale)],
                        1),
        ], 1)
        grid = F.affine_grid(theta, (count, 3, CANVAS, CANVAS),
                             align_corners=False)
        part = F.grid_sample(self.photos[which], grid, align_corners=False,
                             padding_mode="reflection")
        order = self.uniform(count, 3).argsort(1)
        part = part.gather(1, order.view(count, 3, 1, 1).expand_as(part))
        return (part * self.uniform(count, 3, 1, 1, low=0.7, high=1.3)
                ).clamp(0, 1)


def shrink(canvas, size: int):
    """[B, 3, H, W] -> [B, 3, size, size], bicubic."""
    return F.interpolate(canvas, (size, size), mode="bicubic",
                         antialias=True, align_corners=False).clamp(0, 1)


def coverage(alpha, grid: int):
    """[B, 128, 128] -> [B, grid * grid]: glyph's share of each patch."""
    solid = (alpha > 0.5).float().unsqueeze(1)
    return F.avg_pool2d(solid, alpha.shape[-1] // grid).flatten(1)
