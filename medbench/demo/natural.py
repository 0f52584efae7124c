"""Everyday pictures with captions for the generalists: coloured things on textured grounds, and nothing medical.

Endless and seeded. Outlines (smooth, wavy, spiky), fillings and grounds at several scales, counts, sizes and places
are named in the captions, so a model has to see fine texture and outlines to tell the pictures apart.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from medbench.demo.canvas import SIZE, Field, Image, Rng, X, Y, blend, clouds, dots, encode, stroke, wander

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.13, 0.12),
    "green": (0.15, 0.60, 0.22),
    "blue": (0.15, 0.30, 0.80),
    "yellow": (0.95, 0.85, 0.20),
    "orange": (0.95, 0.55, 0.15),
    "purple": (0.50, 0.20, 0.62),
    "pink": (0.95, 0.60, 0.72),
    "brown": (0.45, 0.28, 0.15),
    "white": (0.95, 0.95, 0.95),
    "grey": (0.50, 0.50, 0.50),
    "black": (0.08, 0.08, 0.08),
}
COUNTS = ("a", "two", "three", "four", "many")
SHAPES = ("ball", "box", "triangle", "ring", "flower", "star", "cloud", "cross")
FILLINGS = ("plain", "striped", "spotted", "checked", "netted", "grainy")
GROUNDS = ("plain", "striped", "spotted", "checked", "netted", "grainy", "cloudy", "wavy", "scribbled")
PLACES = ("top", "middle", "bottom")
SCENES = ("a photo of {}", "a picture of {}", "{}", "an image of {}")


class Pair(NamedTuple):
    """An image, uint8 [64, 64, 3], its caption, and its topic: pairs of one topic describe each other equally well."""

    image: Image
    caption: str
    topic: str


def pairs(seed: int) -> Iterator[Pair]:
    """The endless stream of the seed."""
    rng = np.random.default_rng(np.random.SeedSequence((seed,), spawn_key=(1,)))
    while True:
        yield pair(rng)


def pair(rng: Rng) -> Pair:
    """One picture with its caption."""
    ink, paper = rng.permutation(list(COLOURS))[:2]
    ground, filling, shape = (str(rng.choice(words)) for words in (GROUNDS, FILLINGS, SHAPES))
    count, place = int(rng.integers(len(COUNTS))), int(rng.integers(len(PLACES)))
    large = bool(rng.random() < 0.5)
    first, second = (np.array(COLOURS[name]) * rng.uniform(0.85, 1.1) for name in (ink, paper))
    image = np.broadcast_to(second, (SIZE, SIZE, 3))
    image = blend(image, 0.8 * texture(rng, ground), rng.choice((0.45, 1.5)) * second + 0.1)
    cover = things(rng, shape, COUNTS[count], large, place)
    inside = first * (1 - 0.65 * texture(rng, filling) * rng.choice((1.0, -0.9)))[:, :, None]
    image = image + cover[:, :, None] * (inside - image)
    image = image + rng.uniform(0, 0.04) * rng.standard_normal((SIZE, SIZE, 1))
    return Pair(encode(image), *_caption(rng, COUNTS[count], large, filling, ink, shape, ground, paper, PLACES[place]))


def _caption(rng: Rng, count: str, large: bool, filling: str, ink: str, shape: str, ground: str, paper: str, place: str) -> tuple[str, str]:
    """The caption, which leaves out some of what is seen, and the topic, which is the caption."""
    noun = shape if count == "a" else {"box": "boxes", "cross": "crosses"}.get(shape, f"{shape}s")
    size = "" if rng.random() < 0.4 else "big " if large else "small "
    thing = f"{count} {size}{filling} {ink} {noun}".replace("a orange", "an orange")
    where = f" at the {place}" if count == "a" and rng.random() < 0.5 else ""
    behind = "" if rng.random() < 0.2 else f" on a {ground} {paper} ground"
    caption = str(rng.choice(SCENES)).format(thing + where + behind)
    return caption, caption


def texture(rng: Rng, name: str) -> Field:
    """Coverage in [0, 1] of one of `GROUNDS`, at a random scale and turn."""
    pitch, turn = rng.uniform(3.2, 10), rng.uniform(0, np.pi)
    along = (X * np.cos(turn) + Y * np.sin(turn)) * 2 * np.pi / pitch
    across = (Y * np.cos(turn) - X * np.sin(turn)) * 2 * np.pi / pitch
    if name == "plain":
        return np.zeros((SIZE, SIZE))
    if name == "cloudy":
        return np.clip(0.5 + 0.3 * clouds(rng, int(rng.integers(3, 9))), 0, 1)
    if name == "grainy":
        return np.clip(0.5 + 0.4 * clouds(rng, int(rng.integers(22, 40))), 0, 1)
    if name == "spotted":
        count = int(rng.integers(15, 60))
        return np.clip(dots(rng.uniform(0, SIZE, count), rng.uniform(0, SIZE, count), rng.uniform(0.8, 2.2)), 0, 1)
    if name == "scribbled":
        paths = [wander(rng, y, x, rng.uniform(0, 6.3), rng.uniform(15, 50), 2.0) for y, x in rng.uniform(0, SIZE, (5, 2))]
        strokes = [stroke(*path, rng.uniform(0.5, 1.1)) for path in paths]
        lines: Field = np.clip(np.sum(strokes, axis=0), 0, 1)
        return lines
    waves = {
        "striped": np.sin(along),
        "checked": np.sin(along) * np.sin(across),
        "netted": np.maximum(np.cos(along), np.cos(across)) - 0.5,
        "wavy": np.sin(along + 1.5 * clouds(rng, 4)),
    }
    cover: Field = np.clip(0.5 + 1.5 * waves[name], 0, 1)
    return cover


def things(rng: Rng, shape: str, count: str, large: bool, place: int) -> Field:
    """Coverage of `count` things of one shape; a single one stands in the third of the canvas called `place`."""
    number = {"many": int(rng.integers(7, 12))}.get(count, COUNTS.index(count) + 1)
    size = rng.uniform(9, 13) if large else rng.uniform(3.5, 6)
    size /= 1 + 0.25 * (number > 2) + 0.35 * (number > 4)
    y, x = rng.uniform(6, SIZE - 6, (2, number))
    if number == 1:
        y = 12 + 20 * place + rng.normal(0, 3, 1)
    spread = np.arange(number) - (number - 1) / 2
    if number < 5:
        x = np.clip(SIZE / 2 + spread * SIZE / (number + 0.3) + rng.normal(0, 3, number), 4, SIZE - 4)
    cover = np.zeros((SIZE, SIZE))
    for cy, cx in zip(y, x, strict=True):
        cover = np.maximum(cover, _thing(rng, shape, cy, cx, size * rng.uniform(0.85, 1.15)))
    return cover


def _thing(rng: Rng, shape: str, cy: float, cx: float, size: float) -> Field:
    """Coverage of one thing of radius `size` px, turned at random."""
    radius, angle = np.hypot(Y - cy, X - cx), np.arctan2(Y - cy, X - cx) + rng.uniform(0, 6.3)
    side_y, side_x = np.abs(radius * np.sin(angle)), np.abs(radius * np.cos(angle))
    inside: Field
    match shape:
        case "ball":
            inside = size - radius
        case "box":
            inside = 0.85 * size - np.maximum(side_y, side_x)
        case "triangle":
            inside = 0.6 * size - radius * np.cos((angle % (2 * np.pi / 3)) - np.pi / 3)
        case "ring":
            inside = 0.28 * size - np.abs(radius - 0.8 * size)
        case "flower":
            inside = size * (0.8 + 0.25 * np.cos(int(rng.integers(4, 7)) * angle)) - radius
        case "star":
            inside = size * (0.4 + 0.9 * np.abs(np.cos(angle * rng.integers(5, 10) / 2)) ** 3) - radius
        case "cloud":
            inside = size * (0.9 + 0.15 * np.sum([np.cos(k * angle + rng.uniform(0, 6.3)) for k in (3, 5, 7)], axis=0)) - radius
        case _:
            inside = np.minimum(size - radius, 0.3 * size - np.minimum(side_y, side_x))
    return np.clip(inside + 0.5, 0, 1)
