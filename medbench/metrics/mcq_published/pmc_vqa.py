"""PMC-VQA's official test (xiaoman-zhang/PMC-VQA, src/MedVInT_TD/test.py): the nearest choice as the files write it, "A:text".

Wrong: a refusal, or a sentence about something else, is the choice that shares the most characters with it.
"""

from collections.abc import Mapping

from .reading import UNPARSED, Reading, nearest, parsed


def read(answer: str, options: Mapping[str, str]) -> Reading:
    """The nearest choice by difflib."""
    letter = nearest(answer, {letter: f"{letter}:{text}" for letter, text in options.items()})
    return parsed(letter) if letter else UNPARSED
