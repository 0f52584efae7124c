"""What a parser returns, and what several of them do."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

State: TypeAlias = Literal["parsed", "unparsed", "random"]


class Reading(NamedTuple):
    """A reading of one answer. `random`: the original draws a letter here; it is counted, not drawn."""

    letter: str | None  # None but for parsed
    state: State


UNPARSED = Reading(None, "unparsed")
RANDOM = Reading(None, "random")


def parsed(letter: str) -> Reading:
    """The reading of a letter."""
    return Reading(letter, "parsed")


def nearest(answer: str, texts: Mapping[str, str]) -> str | None:
    """The letter of the text most similar to an answer by difflib's ratio, the first of equals; None where none has anything in common."""
    ratios = {letter: difflib.SequenceMatcher(None, text, answer).ratio() for letter, text in texts.items()}
    letter = max(ratios, key=lambda one: ratios[one])
    return letter if ratios[letter] else None


def last_box(text: str) -> str | None:
    r"""What the last `\boxed{...}` holds, braces within it included; None where there is none, or it does not end."""
    _, opened, rest = text.rpartition(r"\boxed{")
    depth = 1
    for place, mark in enumerate(rest if opened else ""):
        depth += {"{": 1, "}": -1}.get(mark, 0)
        if not depth:
            return rest[:place].strip()
    return None


def last_by(places: Mapping[str, int]) -> str:
    """The letter that stands last, the first of equals."""
    return max(places, key=lambda letter: places[letter])


def holding(text: str, wanted: Iterable[tuple[str, str]]) -> list[str]:
    """Letters of the pairs (letter, piece) whose piece a text holds."""
    return [letter for letter, piece in wanted if piece in text]
