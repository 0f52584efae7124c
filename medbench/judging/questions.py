"""Questions from clinical notes, after the article's FairVLMed-VQA: one open and one closed question a note, checked before they count.

The article's own words are not public; these are ours. The closed question's answer is set beforehand, half yes and half no, so that
no model gains by a habit.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from medbench.errors import visible
from medbench.metrics.evaluate_modules.vqa_strict.words import tokens as words_of
from medbench.metrics.evaluate_modules.vqa_strict.words import yes_or_no
from medbench.metrics.judging.strict import once
from medbench.models.answering import Answerer, Prompt

SYSTEM = """\
You write examination questions about one medical image of one patient. You get the clinical note that belongs to the image. The person who
answers sees the image alone, never the note.

Write one open question and one closed question about findings, anatomy, severity or diagnosis that the note states.
- The open question asks what, where, which or how; its answer is one to eight words of the note's content.
- The closed question is answered by yes or no alone, and its right answer is the one that you are told.
- No question holds its own answer, or speaks of a note, report, summary or patient record.
- Nothing is asked of age, sex, race, dates, names or treatment.

Reply with one JSON object and nothing else.
"""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "open_question": {"type": "string", "maxLength": 300},
        "open_answer": {"type": "string", "maxLength": 120},
        "closed_question": {"type": "string", "maxLength": 300},
        "closed_answer": {"type": "string", "enum": ["yes", "no"]},
    },
    "required": ["open_question", "open_answer", "closed_question", "closed_answer"],
    "additionalProperties": False,
}
TRIES = 2
LONGEST = 8000  # characters of a note that are sent
MOST_WORDS = 12  # of an open answer
SOURCES = frozenset(["note", "notes", "report", "reports", "summary", "summaries", "record", "records", "text"])
"""Words of a question that give away where it comes from: who sees the image alone cannot answer it."""


NOT_AS_SET = "the closed answer is not the one that was set"


class Note(NamedTuple):
    """A clinical note; `name` is of its image or patient."""

    name: str
    text: str


class Pair(NamedTuple):
    """Both questions of a note, or what is wrong with them."""

    open_question: str = ""
    open_answer: str = ""
    closed_question: str = ""
    closed_answer: str = ""
    fault: str = ""


def wanted(name: str) -> str:
    """The closed answer of a note: yes or no by its name alone."""
    return "yes" if hashlib.sha256(name.encode()).digest()[0] % 2 else "no"


def prompt(note: Note, tries: int = 0) -> Prompt:
    """What a model is asked for a note."""
    text = f"The right answer of the closed question is: {wanted(note.name)}.\n\nThe clinical note:\n\n{note.text[:LONGEST]}"
    return Prompt(f"note {note.name}", SYSTEM, text, SCHEMA, tries)


def digest() -> str:
    """Of all that questions follow from besides the notes and the model."""
    return hashlib.sha256(json.dumps([SYSTEM, SCHEMA, LONGEST, TRIES], sort_keys=True).encode()).hexdigest()


def make(answerer: Answerer, notes: Iterable[Note], max_new_tokens: int) -> Iterator[tuple[Note, Pair]]:
    """Both questions of every note, asked once more where a check fails. Raises MedbenchError where the model cannot be asked."""
    waiting = list(notes)
    for tries in range(TRIES):
        again = []
        for note, said in answerer.says(((note, prompt(note, tries)) for note in waiting), max_new_tokens):
            made = read(said.text, note) if said.finish_reason == "stop" else Pair(fault=f"ended by {said.finish_reason}")
            if made.fault and tries + 1 < TRIES:
                again.append(note)
            else:
                yield note, made
        waiting = again


def read(reply: str, note: Note) -> Pair:
    """The questions of a reply; with a `fault` where it breaks the schema or one of the checks."""
    try:
        found = json.loads(reply, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return Pair(fault="no JSON object")
    if not isinstance(found, dict) or set(found) != set(SCHEMA["required"]) or not all(isinstance(one, str) for one in found.values()):
        return Pair(fault="not the schema's keys")
    made = Pair(**{name: " ".join(text.split()) for name, text in found.items()})
    return made._replace(fault=next(iter(faults(made, note)), ""))


def faults(made: Pair, note: Note) -> Iterator[str]:
    """What is wrong with two questions, each in words."""
    answer, asked = words_of(made.open_answer), words_of(made.open_question)
    if not (made.open_question and made.open_answer and made.closed_question):
        yield "a question or an answer is empty"
    if any(visible(text) != text for text in made):
        yield "a question or an answer holds characters that cannot be shown"
    if _holds(asked, answer):
        yield "the open question holds its answer"
    if yes_or_no(made.open_answer):
        yield "the open answer is yes or no"
    if len(answer) > MOST_WORDS:
        yield "the open answer is a long text"
    if made.closed_answer.lower() not in ("yes", "no"):
        yield "the closed answer is not yes or no"
    elif made.closed_answer.lower() != wanted(note.name):
        yield NOT_AS_SET
    if SOURCES & {*asked, *words_of(made.closed_question)}:
        yield "a question speaks of the note"
    if not (made.open_question.endswith("?") and made.closed_question.endswith("?")):
        yield "a question does not end with a question mark"


def _holds(text: list[str], part: list[str]) -> bool:
    """Whether words stand in a text, one after another."""
    return bool(part) and any(text[start : start + len(part)] == part for start in range(len(text) - len(part) + 1))
