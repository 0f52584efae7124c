"""Diagnosis phantoms: drawn patients with a sign that is absent (label 0) or present (label 1), in four modalities.

A phantom is made so that its task is worth a model: the sign is a local structure at a varying place, and the class
without it shows a benign look-alike of equal total intensity there, so a probe on 16x16 pixels stays near chance.
Severity, place, contrast, tint and noise vary from patient to patient; a patient's images share anatomy and style.

Evaluation cohorts and pretraining draw from different seed streams (`STREAMS`), so no model sees a cohort's image
before it is adapted to it.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np

from medbench.demo import anatomy
from medbench.demo.canvas import Field, Image, Rng, encode
from medbench.demo.captions import PROMPTS, captions

__all__ = ["KINDS", "PROMPTS", "Patient", "PhantomImage", "Stream", "Style", "captions", "cohort", "draw", "style_of"]

KINDS: tuple[str, ...] = ("radiology", "pathology", "dermatology", "ophthalmology")

Stream = Literal["cohort", "pretrain"]
STREAMS: dict[Stream, int] = {"cohort": crc32(b"cohort"), "pretrain": crc32(b"pretrain")}
"""First word of every seed: streams with different words share no patient, whatever the seed."""

ORGANS: dict[str, Callable[[Rng, Rng, float], Field]] = {
    "radiology": anatomy.chest,
    "pathology": anatomy.tissue,
    "dermatology": anatomy.skin,
    "ophthalmology": anatomy.fundus,
}


class Style(NamedTuple):
    """What a patient's images share."""

    anatomy: int
    """Seed of the body: equal in all views."""
    severity: float
    """0 to 1: how far a present sign departs from its look-alike; the low end is hard to see."""
    contrast: float
    brightness: float
    tint: tuple[float, float, float]
    """The scanner's or camera's gain per channel; equal channels in radiology."""
    noise: float
    """Deviation of the grain, in units of the full scale."""


class Patient(NamedTuple):
    """One patient of a cohort."""

    name: str
    label: int
    style: Style
    images: int


class PhantomImage(NamedTuple):
    """One image: `image` is uint8 [64, 64, 3]; `index` counts the patient's images from 0."""

    patient: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    label: int
    image: Image


def style_of(kind: str, rng: Rng) -> Style:
    """A random patient's style."""
    spread = 0.0 if kind == "radiology" else 0.04
    gains = 1 + rng.normal(0, spread, 3)
    return Style(
        anatomy=int(rng.integers(2**32)),
        severity=float(rng.uniform(0.55, 1.0)),
        contrast=float(rng.uniform(0.85, 1.12)),
        brightness=float(rng.normal(0, 0.025)),
        tint=(float(gains[0]), float(gains[1]), float(gains[2])),
        noise=float(rng.uniform(0.01, 0.035)),
    )


def draw(kind: str, label: int, rng: Rng, style: Style | None = None) -> Image:
    """One view of a patient of that `style` (of a random one without): uint8 [64, 64, 3].

    Raises KeyError for a kind outside `KINDS`.
    """
    style = style or style_of(kind, rng)
    field = ORGANS[kind](np.random.default_rng(style.anatomy), rng, style.severity if label else 0.0)
    grain = style.noise * rng.standard_normal(field.shape)
    toned = 0.5 + style.contrast * (field - 0.5) + style.brightness + grain
    return encode(toned if field.ndim == 2 else toned * np.array(style.tint))


def _rng(kind: str, seed: int, stream: Stream, *words: int) -> Rng:
    """A generator that is a function of its arguments alone, equal on every machine."""
    return np.random.default_rng(np.random.SeedSequence((STREAMS[stream], seed, crc32(kind.encode()), *words)))


def patient(kind: str, index: int, seed: int, stream: Stream = "cohort") -> Patient:
    """Patient number `index`; each pair (2i, 2i + 1) holds both labels in random order, so every cohort is balanced."""
    rng = _rng(kind, seed, stream, 0, index)
    label = (int(_rng(kind, seed, stream, 1, index // 2).integers(2)) + index) % 2
    return Patient(f"{kind}-{index:05d}", label, style_of(kind, rng), int(rng.integers(2, 4)))


def cohort(kind: str, n_patients: int, seed: int, stream: Stream = "cohort") -> Iterator[PhantomImage]:
    """The images of patients 0 to `n_patients - 1`, two or three each; a patient is the same in a larger cohort."""
    for index in range(n_patients):
        who = patient(kind, index, seed, stream)
        for view in range(who.images):
            rng = _rng(kind, seed, stream, 2, index, view)
            yield PhantomImage(who.name, view, who.label, draw(kind, who.label, rng, who.style))
