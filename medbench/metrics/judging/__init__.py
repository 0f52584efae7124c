"""Scorings of open answers by a judge, a language model that compares an answer with its reference: what is put to it, and how its
reply is read. One module a scoring, found by its name:

`messages(question, reference, answer) -> list[Message]`, `read(reply, answer) -> Reading`,
`unasked(reference, answer, is_refused) -> Reading | None` for what needs no judge, `SCHEMA` of the reply or None, `TRIES`.
"""

import importlib
from typing import Any, Literal, NamedTuple, TypeAlias

State: TypeAlias = Literal["judged", "exact", "empty", "refused", "failed"]
STATES: tuple[State, ...] = ("judged", "exact", "empty", "refused", "failed")
"""`exact`, `empty` and `refused` (the model declined) are scored unasked; `failed`: the judge gave no readable score, which is null."""
SCORINGS = ("strict", "published")
LOWEST, HIGHEST = 1, 100


class Message(NamedTuple):
    """A turn of what is put to the judge; `role`: system or user."""

    role: str
    text: str


class Reading(NamedTuple):
    """A score from 1 to 100 with its reason; `score` is None where the reply cannot be read, and `reason` says why."""

    state: State
    score: float | None
    reason: str


def scoring(name: str) -> Any:
    """The module of a scoring of `SCORINGS`."""
    return importlib.import_module(f"{__name__}.{name}")
