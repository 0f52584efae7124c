"""Question-answering phantoms: drawn patients with findings to ask about, in two modalities, and the questions.

Every question needs the image. Over the patients all combinations of facts occur equally often, every yes/no question has
the answer "yes" in one image of a patient and "no" in the other, and which option a question names does not depend on the
answer; so neither a constant answer nor the words of a question tell anything (`tests/unit/test_demo_questions.py`).

As in `phantoms`, cohorts and pretraining draw from different seed streams.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import NamedTuple
from zlib import crc32

import numpy as np

from medbench.demo.anatomy import thorax
from medbench.demo.canvas import SIZE, Field, Image, Rng, X, Y, blend, clouds, encode, shapes, stroke, wander
from medbench.demo.phantoms import STREAMS, Stream, style_of

Facts = Mapping[str, str]
"""Topic -> the option that holds in an image."""
VIEWS = 2
"""Images of a patient: same facts, same body, another exposure."""


class Topic(NamedTuple):
    """Something to ask about: its options, and wordings with a place `{}` for each option named."""

    options: tuple[str, ...]
    check: tuple[str, ...]
    """Yes/no questions about one option."""
    choose: tuple[str, ...]
    """Closed questions that name two options."""
    name: tuple[str, ...]
    """Open questions, answered with an option."""


class Asked(NamedTuple):
    """A question with its reference; `answer_type` is open or closed."""

    question: str
    answer: str
    answer_type: str


class Sample(NamedTuple):
    """A question about an image, uint8 [64, 64, 3]; `index` counts the patient's images from 0."""

    patient: str
    index: int  # type: ignore[assignment]
    question: str
    answer: str
    answer_type: str
    image: Image


TOPICS: dict[str, dict[str, Topic]] = {
    "radiology": {
        "side": Topic(
            ("left", "right"),
            ("Is the opacity in the {} lung?", "Does the {} lung show an opacity?"),
            ("Is the opacity in the {} or the {} lung?",),
            ("Which lung shows an opacity?", "On which side is the opacity?"),
        ),
        "zone": Topic(
            ("upper", "middle", "lower"),
            ("Is the opacity in the {} zone?", "Does the {} zone show an opacity?"),
            ("Is the opacity in the {} or the {} zone?",),
            ("Which zone shows an opacity?", "In which zone is the opacity?"),
        ),
        "finding": Topic(
            ("nodule", "mass"),
            ("Is there a {} in this radiograph?", "Does this radiograph show a {}?"),
            ("Is the opacity a {} or a {}?",),
            ("What is the opacity?", "What kind of opacity is this?"),
        ),
    },
    "dermatology": {
        "colour": Topic(
            ("brown", "black", "red", "blue"),
            ("Is the pigment {}?", "Does the lesion have {} pigment?"),
            ("Is the pigment {} or {}?",),
            ("What colour is the pigment?", "Which colour does the lesion have?"),
        ),
        "number": Topic(
            ("one", "two", "three"),
            ("Is the number of lesions {}?", "Does the number of lesions equal {}?"),
            ("Is the number of lesions {} or {}?",),
            ("How many lesions are there?", "What is the number of lesions?"),
        ),
        "half": Topic(
            ("left", "right"),
            ("Is the {} half of the skin affected?", "Does the {} half of the skin bear a lesion?"),
            ("Is the {} or the {} half of the skin affected?",),
            ("Which half of the skin is affected?", "Which half of the skin bears a lesion?"),
        ),
    },
}
KINDS: tuple[str, ...] = tuple(TOPICS)
PIGMENTS = {
    "brown": (0.42, 0.24, 0.12),
    "black": (0.09, 0.07, 0.07),
    "red": (0.75, 0.12, 0.14),
    "blue": (0.25, 0.34, 0.62),
}


def radiograph(facts: Facts, anatomy: Rng, view: Rng) -> Field:
    """Grey chest radiograph with one opacity; the patient's left lung is on the image's right, as radiographs are read."""
    image, body, cy, cx, width = thorax(anatomy, view)
    side = 1 if facts["side"] == "left" else -1
    y = cy + {"upper": 17, "middle": 30, "lower": 42}[facts["zone"]] + anatomy.uniform(-1.5, 1.5) + view.normal(0, 0.7)
    x = cx + side * width * (anatomy.uniform(14, 18) + view.normal(0, 0.7))
    height, breadth = (3.0, 3.0) if facts["finding"] == "nodule" else (8.5, 7.5)
    shadow = shapes(view, y, x, height, breadth, 0.06, soft=1.5)
    return image + body * anatomy.uniform(0.42, 0.50) * shadow


def skin(facts: Facts, anatomy: Rng, view: Rng) -> Field:
    """Colour dermatoscopic image with one to three lesions of one colour, above each other in one half."""
    tone = anatomy.uniform(0, 1)
    base = (1 - tone) * np.array([0.90, 0.72, 0.64]) + tone * np.array([0.76, 0.56, 0.45])
    image = base * (1 + 0.025 * clouds(view, 5) + 0.02 * clouds(view, 28))[:, :, None]
    count = TOPICS["dermatology"]["number"].options.index(facts["number"]) + 1
    size, half = anatomy.uniform(4.5, 6.0), 18 if facts["half"] == "left" else 46
    y = SIZE / 2 + (np.arange(count) - (count - 1) / 2) * 16 + (view.normal(0, 2) if count > 1 else view.normal(0, 8))
    x = half + view.normal(0, 2.5, count)
    ink = shapes(view, y, x, np.full(count, size), np.full(count, size * 0.9), 0.06, soft=2)
    image = blend(image, np.clip(ink * (0.85 + 0.08 * clouds(view, 8)), 0, 1), PIGMENTS[facts["colour"]])
    for _ in range(int(anatomy.integers(0, 3))):
        hair = wander(view, view.uniform(0, 64), view.uniform(-4, 40), view.uniform(-1.4, 1.4), view.uniform(30, 60), 0.6)
        image = blend(image, np.clip(stroke(*hair, 0.4, 0.7), 0, 0.7), [0.14, 0.09, 0.07])
    corner = np.hypot(Y - 31.5, X - 31.5) - anatomy.uniform(38, 48)
    return image * (1 - 0.75 / (1 + np.exp(-np.clip(corner, -20, 20))))[:, :, None]


DRAWINGS: dict[str, Callable[[Facts, Rng, Rng], Field]] = {"radiology": radiograph, "dermatology": skin}


def ask(topic: Topic, truth: str, form: str, rng: Rng, holds: bool = True) -> Asked:
    """One question of a form (check | choose | name) whose answer follows from `truth`; a `check` is true if `holds`."""
    others = [option for option in topic.options if option != truth]
    other = str(rng.choice(others))
    pair = (truth, other) if rng.random() < 0.5 else (other, truth)
    match form:
        case "check":
            return Asked(str(rng.choice(topic.check)).format(truth if holds else other), "yes" if holds else "no", "closed")
        case "choose":
            return Asked(str(rng.choice(topic.choose)).format(*pair), truth, "closed")
    return Asked(str(rng.choice(topic.name)), truth, "open")


def facts_of(kind: str, index: int, seed: int, stream: Stream = "cohort") -> dict[str, str]:
    """The facts of patient `index`: consecutive blocks of patients hold every combination once, in random order."""
    topics = TOPICS[kind]
    combinations = list(product(*(topic.options for topic in topics.values())))
    block, place = divmod(index, len(combinations))
    order = _rng(kind, seed, stream, 1, block).permutation(len(combinations))
    return dict(zip(topics, combinations[order[place]], strict=True))


def picture(kind: str, facts: Facts, index: int, view: int, seed: int, stream: Stream = "cohort") -> Image:
    """View number `view` of patient `index`."""
    style = style_of("radiology", _rng(kind, seed, stream, 2, index))
    rng = _rng(kind, seed, stream, 3, index, view)
    field = DRAWINGS[kind](facts, np.random.default_rng(style.anatomy), rng)
    return encode(0.5 + style.contrast * (field - 0.5) + style.brightness + style.noise * rng.standard_normal(field.shape))


def cohort(kind: str, n_patients: int, seed: int, stream: Stream = "cohort") -> Iterator[Sample]:
    """Four questions about each of two images of patients 0 to `n_patients - 1`: one yes/no, two choices, one open.

    A patient is the same in a larger cohort. The topics take turns; the second image has the opposite yes/no answers.
    """
    topics = TOPICS[kind]
    for index in range(n_patients):
        facts, rng = facts_of(kind, index, seed, stream), _rng(kind, seed, stream, 4, index)
        order, holds = rng.permutation(list(topics)), bool(rng.random() < 0.5)
        for view in range(VIEWS):
            image = picture(kind, facts, index, view, seed, stream)
            for topic, form in ((order[0], "check"), (order[1], "choose"), (order[2], "choose"), (order[view], "name")):
                true = holds != bool(view) if form == "check" else True
                asked = ask(topics[topic], facts[topic], form, rng, true)
                yield Sample(f"{kind}-{index:05d}", view, *asked, image)


def _rng(kind: str, seed: int, stream: Stream, *words: int) -> Rng:
    """A generator that is a function of its arguments alone; the word `questions` keeps it apart from the diagnosis phantoms'."""
    return np.random.default_rng(np.random.SeedSequence((STREAMS[stream], crc32(b"questions"), seed, crc32(kind.encode()), *words)))
