"""Drawing primitives on a square canvas of `SIZE` pixels: plain numpy, no state, float64 coverages in [0, 1].

Coordinates are pixels, `(y, x)`, origin at the top left. Every primitive takes the generator it needs, so an image
depends on nothing but its generator.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIZE = 64
Field = NDArray[np.float64]
"""[SIZE, SIZE], or [SIZE, SIZE, 3] where a docstring says colour."""
Image = NDArray[np.uint8]
"""[SIZE, SIZE, 3]."""
Rng = np.random.Generator

AXIS = np.arange(SIZE, dtype=np.float64)
Y, X = np.meshgrid(AXIS, AXIS, indexing="ij")


def dots(y: ArrayLike, x: ArrayLike, sigma: ArrayLike, weight: ArrayLike = 1.0) -> Field:
    """Sum of isotropic Gaussians of peak `weight` and radius `sigma` [px] at the n points `(y, x)`."""
    width = np.atleast_1d(np.asarray(sigma, dtype=np.float64))[:, None]
    rows, columns = _falling(y, width), _falling(x, width)
    field: Field = (rows * np.atleast_1d(weight)[:, None]).T @ columns
    return field


def _falling(centre: ArrayLike, width: Field) -> Field:
    """Gaussians [n, SIZE] of radius `width` [n or 1, 1] along an axis.

    They end at e^-100, which no sum of coverages sees: products of smaller ones are subnormal numbers, ten times slower.
    """
    away = AXIS - np.atleast_1d(centre)[:, None]
    away /= width
    away *= away
    away *= -0.5
    falling: Field = np.exp(np.maximum(away, -100.0))
    return falling


def stroke(y: ArrayLike, x: ArrayLike, sigma: ArrayLike, weight: ArrayLike = 1.0) -> Field:
    """A soft line of radius `sigma` [px] along the polyline `(y, x)`, about `weight` high at any spacing."""
    ys, xs = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
    spacing = np.hypot(np.gradient(ys), np.gradient(xs))
    height = np.asarray(weight) * spacing / (np.sqrt(2 * np.pi) * np.asarray(sigma))
    return dots(ys, xs, np.broadcast_to(sigma, ys.shape), np.broadcast_to(height, ys.shape))


def wander(rng: Rng, y: float, x: float, angle: float, length: float, bend: float) -> tuple[Field, Field]:
    """Points `(y, x)` of a path of `length` px that leaves `(y, x)` at `angle` and turns by about `bend` rad."""
    steps = max(4, int(length))
    turns = angle + np.linspace(0, rng.normal(0, bend), steps) + np.cumsum(rng.normal(0, bend / steps, steps))
    pace = length / steps
    return y + pace * np.cumsum(np.sin(turns)), x + pace * np.cumsum(np.cos(turns))


def shapes(rng: Rng, y: ArrayLike, x: ArrayLike, ry: ArrayLike, rx: ArrayLike, rough: float = 0.0, soft: float = 1.0) -> Field:
    """Union of n randomly turned ellipses with edges `soft` px wide; `rough` is the outline's relative irregularity."""
    centre_y, centre_x, half_y, half_x = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (y, x, ry, rx))
    reach = int(np.ceil(max(half_y.max(), half_x.max()) * (1 + 1.5 * rough) + soft))
    offset = np.arange(-reach, reach + 1)
    top, left = np.rint(centre_y).astype(int), np.rint(centre_x).astype(int)
    dy = (offset + (top - centre_y)[:, None])[:, :, None]
    dx = (offset + (left - centre_x)[:, None])[:, None, :]
    turn = rng.uniform(0, np.pi, len(centre_y))[:, None, None]
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    radius = np.hypot(across / half_y[:, None, None], along / half_x[:, None, None])
    limit = 1.0 + (_outline(rng, along, across, rough) if rough else 0.0)
    edge = np.minimum(half_y, half_x)[:, None, None] / soft
    cover = np.clip((limit - radius) * edge + 0.5, 0, 1)
    margin = reach + SIZE
    canvas = np.zeros((SIZE + 2 * margin, SIZE + 2 * margin))
    rows, columns = (
        np.clip(top + margin, reach, SIZE + margin + SIZE),
        np.clip(left + margin, reach, SIZE + margin + SIZE),
    )
    for window, row, column in zip(cover, rows, columns, strict=True):
        view = canvas[row - reach : row + reach + 1, column - reach : column + reach + 1]
        np.maximum(view, window, out=view)
    return canvas[margin : margin + SIZE, margin : margin + SIZE]


def _outline(rng: Rng, along: Field, across: Field, rough: float) -> Field:
    """Relative radius offsets [n, h, w] of an irregular outline: three harmonics, higher ones weaker."""
    angle = np.arctan2(across, along)
    offset = np.zeros_like(angle)
    for harmonic in (2, 3, 5):
        phase = rng.uniform(0, 2 * np.pi, len(angle))[:, None, None]
        offset += np.cos(harmonic * angle + phase) / np.sqrt(harmonic)
    return rough * offset


@lru_cache
def _upsampling(cells: int) -> Field:
    """[SIZE, cells]: rows are the normalised Gaussian weights that spread a coarse grid over the canvas."""
    centres = (np.arange(cells) + 0.5) * SIZE / cells
    weights = np.exp(-(((AXIS[:, None] + 0.5 - centres) * cells / SIZE) ** 2))
    kernel: Field = weights / weights.sum(axis=1, keepdims=True)
    return kernel


def clouds(rng: Rng, cells: int) -> Field:
    """Smooth noise of about unit deviation whose features are `SIZE / cells` px wide."""
    kernel = _upsampling(cells)
    field: Field = 1.6 * kernel @ rng.standard_normal((cells, cells)) @ kernel.T
    return field


def matched(mask: Field, mass: float) -> Field:
    """`mask` scaled to sum to `mass`: what makes two signs equal in mean intensity."""
    scaled: Field = mask * (mass / max(float(mask.sum()), 1e-9))
    return scaled


def blend(image: Field, cover: Field, colour: ArrayLike) -> Field:
    """The colour image [SIZE, SIZE, 3] with `colour` laid over it where `cover` is 1."""
    return image + cover[:, :, None] * (np.asarray(colour) - image)


def encode(image: Field) -> Image:
    """A grey or colour field in [0, 1] -> RGB bytes [SIZE, SIZE, 3]."""
    colour = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
    return np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8)
