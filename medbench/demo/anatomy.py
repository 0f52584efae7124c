"""The four organs, drawn: chest radiograph, H&E section, skin lesion, fundus.

Each function returns the field before noise: `anatomy` yields what all views of a patient share, `view` what differs.
`sign` in [0, 1] is how far the finding departs from its benign look-alike, which stands at the same place with the
same total intensity, so that neither the mean nor coarse pixels tell the classes apart.
"""

from typing import NamedTuple

import numpy as np

from medbench.demo.canvas import SIZE, Field, Rng, X, Y, blend, clouds, dots, matched, shapes, stroke, wander


class Thorax(NamedTuple):
    """A chest radiograph without a finding: field, body's cover, the lungs' centre `(cy, cx)` and relative width."""

    image: Field
    body: Field
    cy: float
    cx: float
    width: float


def chest(anatomy: Rng, view: Rng, sign: float) -> Field:
    """Grey frontal chest radiograph; sign: a cluster of nodules against a smooth haze."""
    image, body, cy, cx, width = thorax(anatomy, view)
    return image + body * anatomy.uniform(0.36, 0.46) * _nodules(anatomy, view, cy, cx, width, sign)


def thorax(anatomy: Rng, view: Rng) -> Thorax:
    """Body, lungs, heart, ribs and vessels of a grey frontal chest radiograph."""
    width, drop = anatomy.uniform(0.9, 1.08), anatomy.uniform(-2, 2)
    cy, cx = drop + view.uniform(-2, 2), 31.5 + view.uniform(-2.5, 2.5)
    y, x = Y - cy, (X - cx) / width
    body = _step(33 - np.hypot(x, np.maximum(14 - y, 0) * 1.35), 2.5)
    dome = 47 + 0.06 * (np.abs(x) - 13) ** 2 - 2.5 * (x < 0)
    lungs = _step(1 - np.hypot((y - 32) / 25, (np.abs(x) - 14.5 - 0.06 * (y - 30)) / (9.6 + 0.06 * (y - 30))), 0.16)
    lungs *= _step(dome - y, 1.5)
    image = body * (0.60 + 0.04 * clouds(view, 6)) - 0.40 * lungs
    heart = _step(1 - np.hypot((y - 41) / 11, (x - 5.5 - 0.2 * (y - 41)) / 10.5), 0.2)
    middle = np.exp(-((np.abs(x) / 5.2) ** 4))
    image = image + (0.66 - image) * np.maximum(heart, 0.9 * middle) * body * 0.95
    image += 0.05 * middle * np.cos(y * 1.1) * body - 0.16 * np.exp(-((x / 1.6) ** 2)) * _step(24 - y, 2)
    image += body * (_ribs(cy, cx, width, anatomy.uniform(0.08, 0.13)) + _hila(view, cy, cx, width))
    return Thorax(image, body, cy, cx, width)


def _step(distance: Field, soft: float) -> Field:
    """A logistic edge: 1 where `distance` is positive."""
    edge: Field = 1 / (1 + np.exp(-np.clip(distance / soft * 4, -30, 30)))
    return edge


def _ribs(cy: float, cx: float, width: float, height: float) -> Field:
    along = np.linspace(0, 1, 26)
    paths = [(5.5 * k + 6 - 7 * np.sin(np.pi * along * 0.6) + 10 * along**2, 4 + (17 + min(k, 5)) * along) for k in range(9)]
    ys, xs = (np.concatenate([path[i] for path in paths]) for i in (0, 1))
    ribs = dots(np.tile(ys, 2) + cy, np.concatenate([cx - xs * width, cx + xs * width]), 0.95, height * 0.55)
    clavicle = np.linspace(0, 1, 20)
    for side in (-1, 1):
        ribs += stroke(cy + 11 - 5 * clavicle + 2 * np.sin(6 * clavicle), cx + side * (3 + 22 * clavicle), 1.2, 0.13)
    return ribs


def _hila(view: Rng, cy: float, cx: float, width: float) -> Field:
    paths = [
        wander(view, cy + 31, cx + side * 6 * width, turn + view.uniform(-1.2, 1.2), view.uniform(9, 17), 0.5)
        for side, turn in ((1, 0.0), (-1, np.pi))
        for _ in range(7)
    ]
    taper = np.concatenate([np.linspace(1, 0.25, len(y)) for y, _ in paths])
    ys, xs = (np.concatenate([path[axis] for path in paths]) for axis in (0, 1))
    return dots(ys, xs, 0.5 + 0.6 * taper, 0.056 * taper / (0.5 + 0.6 * taper))


def _nodules(anatomy: Rng, view: Rng, cy: float, cx: float, width: float, sign: float) -> Field:
    """Peak about 1: hazy lungs in which, with `sign`, the haze condenses into round nodules of the same mass.

    A nodule lies off its puff of haze by the puff's own radius, so both are equally often at every place.
    """
    count, puff = int(anatomy.integers(14, 21)), 3.0
    side = np.where(np.arange(count) < anatomy.integers(4, count - 3), -1.0, 1.0)
    ys = cy + anatomy.uniform(18, 43, count) + view.normal(0, 0.8, count)
    xs = cx + side * width * anatomy.uniform(12, 18.5, count) + view.normal(0, 0.8, count)
    size = anatomy.uniform(1.4, 2.1, count)
    off_y, off_x = anatomy.normal(0, puff, (2, count))
    nodules = shapes(view, ys + off_y, xs + off_x, size, size * view.uniform(0.85, 1.0, count))
    return sign * nodules + (1 - sign) * matched(dots(ys, xs, puff), float(nodules.sum()))


def tissue(anatomy: Rng, view: Rng, sign: float) -> Field:
    """Colour H&E section; sign: cluster of large irregular dark nuclei against an aggregate of small round ones."""
    eosin, density = anatomy.uniform(0.35, 0.55), anatomy.integers(14, 24)
    flow = view.uniform(0, np.pi) + 0.5 * clouds(view, 3)
    phase = (X * np.cos(flow) + Y * np.sin(flow)) * anatomy.uniform(0.8, 1.1) + 2.0 * clouds(view, 6)
    pink = eosin * (1 + 0.18 * np.sin(phase) + 0.22 * clouds(view, 8))
    gaps = _step(np.sin(phase * 0.5 + 1) * 0.5 + 0.5 * clouds(view, 8) - 1.05, 0.25)
    blue = 0.06 + 0.85 * shapes(view, *_scatter(view, int(density), -2, 66), view.uniform(1.1, 1.7, density), 2.2, 0.12)
    lumen_y, lumen_x, radius = view.uniform(8, 56), view.uniform(8, 56), view.uniform(4, 7)
    gland = shapes(view, lumen_y, lumen_x, radius, radius * 1.25, 0.08)
    ring = np.linspace(0, 2 * np.pi, 15)[:-1] + view.normal(0, 0.08, 14)
    rim = (radius + 3.2) * np.array([[1.0], [1.15]])
    lining = shapes(view, lumen_y + rim[0] * np.sin(ring), lumen_x + rim[1] * np.cos(ring), 1.5, 1.9, 0.1)
    blue = np.maximum(blue, 0.8 * lining) * (1 - gland)
    pink = pink * (1 - 0.85 * np.maximum(gaps, gland))
    cluster, hush = _nuclei(view, sign)
    blue = blue * (1 - hush) + cluster
    density_rgb = blue[:, :, None] * np.array([0.95, 1.15, 0.42]) + pink[:, :, None] * np.array([0.16, 1.05, 0.50])
    tissue_rgb: Field = 0.97 * np.exp(-density_rgb)
    return tissue_rgb


def _scatter(rng: Rng, count: int, low: float, high: float) -> tuple[Field, Field]:
    return rng.uniform(low, high, count), rng.uniform(low, high, count)


def _nuclei(view: Rng, sign: float) -> tuple[Field, Field]:
    """Haematoxylin density of the cell nest, and the cover of the ground it clears; equal density at any `sign`."""
    cy, cx = view.uniform(18, 46, 2)
    clear = shapes(view, cy, cx, 17, 17, 0.05, soft=4)
    y, x = _spiral(view, cy, cx, 46, 2.15)
    small = shapes(view, y, x, 1.4, 1.4, 0.02)
    y, x = _spiral(view, cy, cx, 12, 4.3)
    large = shapes(view, y, x, view.uniform(2.2, 3.0, 12), view.uniform(3.2, 4.2, 12), 0.16)
    mass = 290.0
    return (1 - sign) * matched(small, mass) + sign * matched(large * (1.1 + 0.25 * clouds(view, 30)), mass), 0.9 * clear


def _spiral(view: Rng, cy: float, cx: float, count: int, pitch: float) -> tuple[Field, Field]:
    """Points that fill a disc evenly, about `pitch` px apart, with some disorder."""
    turn, reach = 2.4 * np.arange(count) + view.uniform(0, 6.3), 0.9 * pitch * np.sqrt(np.arange(count) + 0.5)
    jitter = view.normal(0, 0.12 * pitch, (2, count))
    return cy + reach * np.sin(turn) + jitter[0], cx + reach * np.cos(turn) + jitter[1]


def skin(anatomy: Rng, view: Rng, sign: float) -> Field:
    """Colour dermatoscopic image; sign: pigment network in a ragged lesion against a smooth round naevus."""
    tone, depth = anatomy.uniform(0, 1), anatomy.uniform(0.55, 0.8)
    base = (1 - tone) * np.array([0.90, 0.72, 0.64]) + tone * np.array([0.76, 0.56, 0.45])
    image = base * (1 + 0.025 * clouds(view, 5) + 0.02 * clouds(view, 28))[:, :, None]
    cy, cx = view.uniform(24, 40, 2)
    size, round_ = anatomy.uniform(13, 18), anatomy.uniform(0.8, 1.0)
    lesion = shapes(view, cy, cx, size, size * round_, 0.03 + 0.10 * sign, soft=3.0)
    inner = np.exp(-(((Y - cy) ** 2 + (X - cx) ** 2) / (1.1 * size) ** 2))
    ink = lesion * depth * (0.75 + 0.25 * inner + 0.08 * clouds(view, 6))
    mesh = _mesh(view, anatomy.uniform(4.8, 5.8))
    mottle = clouds(view, 14)
    ink = ink * (1 + sign * 0.6 * mesh + (1 - sign) * 0.16 * mottle)
    image = blend(image, np.clip(ink, 0, 1), np.array([0.30, 0.15, 0.09]) + 0.06 * tone)
    for _ in range(int(anatomy.integers(2, 6))):
        hair = wander(view, view.uniform(0, 64), view.uniform(-4, 40), view.uniform(-1.4, 1.4), view.uniform(30, 60), 0.6)
        image = blend(image, np.clip(stroke(*hair, 0.5, 0.85), 0, 0.85), [0.14, 0.09, 0.07])
    corner = np.hypot(Y - 31.5, X - 31.5) - anatomy.uniform(36, 48)
    return image * (1 - 0.75 * _step(corner, 5))[:, :, None]


def _mesh(rng: Rng, pitch: float) -> Field:
    """Honeycomb lines of about zero mean and unit height, `pitch` px apart, warped."""
    turn, warp = rng.uniform(0, np.pi), 1.1 * clouds(rng, 7)
    waves = [
        np.cos((X * np.cos(turn + k) + Y * np.sin(turn + k)) * 2 * np.pi / pitch + warp * (k - 1)) for k in (0.0, np.pi / 3, 2 * np.pi / 3)
    ]
    lines = np.clip(0.2 - np.sum(waves, axis=0), -0.5, 1.4)
    mesh: Field = lines - lines.mean()
    return mesh


def fundus(anatomy: Rng, view: Rng, sign: float) -> Field:
    """Colour fundus photograph; sign: haemorrhage dots and exudates against soft pale and dark mottling."""
    cy, cx = 31.5 + view.normal(0, 0.8, 2)
    radius = np.hypot(Y - cy, X - cx)
    side = anatomy.choice((-1.0, 1.0))
    hue = anatomy.uniform(0, 1)
    base = (1 - hue) * np.array([0.80, 0.38, 0.16]) + hue * np.array([0.70, 0.27, 0.12])
    image = base * (1.08 - 0.35 * (radius / 31) ** 2 + 0.05 * clouds(view, 6))[:, :, None]
    disc_y, disc_x = cy + anatomy.uniform(-3, 3), cx + side * anatomy.uniform(13, 16)
    macula = dots(cy + anatomy.uniform(-1, 3), cx - side * 6, 4.5, 0.5)
    image = blend(image, macula, [0.38, 0.11, 0.06])
    vessels = _arcades(anatomy, disc_y, disc_x, side)
    image = blend(image, np.clip(vessels, 0, 0.8), [0.42, 0.07, 0.06])
    size = anatomy.uniform(4.2, 5.2)
    image = blend(image, shapes(anatomy, disc_y, disc_x, size, size * 0.9, soft=1.5), [0.96, 0.80, 0.48])
    cup = shapes(anatomy, disc_y, disc_x, size * 0.45, size * 0.4, soft=1.5)
    image = blend(image, cup, [1.0, 0.94, 0.72])
    trunk = stroke([disc_y - 5, disc_y, disc_y + 5], [disc_x, disc_x + side * 0.5, disc_x], 0.8, 0.6)
    image = blend(image, np.clip(trunk, 0, 0.6), [0.5, 0.12, 0.08])
    dark, pale = _blots(view, cy, cx, -side, sign), _blots(view, cy, cx, -side, sign)
    image = image + dark[:, :, None] * np.array([-0.42, -0.26, -0.10]) + pale[:, :, None] * np.array([0.28, 0.46, 0.30])
    round_field: Field = image * _step(29.5 - radius, 1.2)[:, :, None] + 0.02
    return round_field


def _arcades(anatomy: Rng, y: float, x: float, side: float) -> Field:
    vessels = np.zeros((SIZE, SIZE))
    for up in (-1, 1):
        for lean, length, width in ((0.55, 46, 1.0), (0.75, 40, 0.75), (-0.7, 16, 0.8), (0.2, 22, 0.55)):
            angle = up * (np.pi / 2 - lean * 0.7 + anatomy.normal(0, 0.1))
            steps = np.linspace(0, 1, int(length))
            turns = angle - up * np.sign(lean) * steps * (1.2 + anatomy.normal(0, 0.15)) + 0.15 * np.sin(steps * 14)
            ys, xs = y + np.cumsum(np.sin(turns)), x - side * np.cumsum(np.cos(turns))
            vessels += stroke(ys, xs, width * (1 - 0.5 * steps), 0.75)
            fork = int(length * anatomy.uniform(0.3, 0.6))
            branch = wander(anatomy, ys[fork], xs[fork], np.arctan2(up, -side * anatomy.uniform(0.2, 1.5)), 14, 0.7)
            vessels += stroke(*branch, 0.5, 0.5)
    return vessels


def _blots(view: Rng, cy: float, cx: float, side: float, sign: float) -> Field:
    """Nine spots around one random place: sharp with `sign`, else spread out, of equal total intensity."""
    distance, angle = view.uniform(4, 20), view.uniform(0, 2 * np.pi)
    y = cy + distance * np.sin(angle) + view.normal(0, 4.5, 9)
    x = cx + side * 3 + distance * np.cos(angle) + view.normal(0, 4.5, 9)
    size = view.uniform(0.8, 1.25, 9)
    sharp, soft = dots(y, x, size, 1.0), dots(y, x, size * 3.2, 1.0)
    mass = float(sharp.sum())
    return sign * sharp + (1 - sign) * matched(soft, mass)
