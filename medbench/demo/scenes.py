"""Everyday scenes with questions for the generalists: coloured things on textured grounds, and nothing medical."""

import numpy as np

from medbench.demo.canvas import SIZE, Image, Rng, X, blend, encode
from medbench.demo.natural import COLOURS, texture, things
from medbench.demo.questions import Topic

SHAPES = ("ball", "box", "ring", "cross")
INKS = ("red", "green", "blue", "yellow", "black", "white")
NUMBERS = ("one", "two", "three")
GROUNDS = ("plain", "striped", "spotted", "cloudy", "wavy")
"""Textures."""
GREY = 0.5
"""How many scenes are black-and-white photographs, with things that stand out less; they have no ink."""

TOPICS: dict[str, Topic] = {
    "shape": Topic(
        SHAPES,
        ("Is there a {} in this picture?", "Does this picture show a {}?", "Is the thing a {}?"),
        ("Is the thing a {} or a {}?",),
        ("What is the thing?", "What kind of thing is this?"),
    ),
    "ink": Topic(
        INKS,
        ("Is the thing {}?", "Does the thing have {} paint?"),
        ("Is the thing {} or {}?",),
        ("What colour is the thing?", "Which colour does the thing have?"),
    ),
    "number": Topic(
        NUMBERS,
        ("Is the number of things {}?", "Does the number of things equal {}?"),
        ("Is the number of things {} or {}?",),
        ("How many things are there?", "What is the number of things?"),
    ),
    "half": Topic(
        ("left", "right"),
        ("Is the thing on the {} side?", "Does the {} side show a thing?"),
        ("Is the thing on the {} or the {} side?",),
        ("On which side is the thing?", "Which side shows a thing?"),
    ),
    "place": Topic(
        ("top", "middle", "bottom"),
        ("Is the thing at the {}?", "Does the {} show a thing?"),
        ("Is the thing at the {} or the {}?",),
        ("Which place shows a thing?", "In which place is the thing?"),
    ),
    "size": Topic(
        ("big", "small"),
        ("Is the thing {}?", "Does the picture show a {} thing?"),
        ("Is the thing {} or {}?",),
        ("What size does the thing have?",),
    ),
}


def scene(rng: Rng) -> tuple[Image, dict[str, str]]:
    """One picture, uint8 [64, 64, 3], and its facts: topic -> option. Several things have neither half nor place."""
    ink, paper = (str(name) for name in rng.permutation(list(INKS))[:2])
    shape, ground, grey = str(rng.choice(SHAPES)), str(rng.choice(GROUNDS)), bool(rng.random() < GREY)
    count, place, large = int(rng.choice(3, p=(0.6, 0.2, 0.2))), int(rng.integers(3)), bool(rng.random() < 0.5)
    first, second = (np.array(COLOURS[name]) * rng.uniform(0.85, 1.1) for name in (ink, paper))
    if grey:
        light = rng.uniform(0.15, 0.85)
        first, second = np.full(3, light + (1 if light < 0.5 else -1) * rng.uniform(0.15, 0.45)), np.full(3, light)
    image = np.broadcast_to(second, (SIZE, SIZE, 3))
    image = blend(image, 0.4 * texture(rng, ground), rng.choice((0.5, 1.4)) * second + 0.1)
    cover = things(rng, shape, ("a", "two", "three")[count], large, place)
    facts = {"shape": shape, "number": NUMBERS[count], "size": "big" if large else "small"}
    if not grey:
        facts["ink"] = ink
    if count == 0:
        shift = int(rng.choice((-1, 1)) * rng.integers(9, 22))
        cover = np.roll(cover, shift, axis=1)
        facts |= {
            "half": "left" if float((cover * (X - (SIZE - 1) / 2)).sum()) < 0 else "right",
            "place": TOPICS["place"].options[place],
        }
    image = blend(image, cover, first)
    return encode(image + rng.uniform(0, 0.04) * rng.standard_normal((SIZE, SIZE, 1))), facts
