"""Strict scores of an answer: what a reader would expect of the words. Needs the standard library only.

The two last functions also stand in the published scoring, so that each folder can be used on its own.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

from .choices import BINARY, Choice, before_question, read_choice, without_thoughts
from .options import options_of, text_pattern
from .words import FILLERS, HELD, THINK, State, Tags, languages, tokens, visible, yes_or_no

FEW = 4  # words: an answer of no more is a choice, where a closed question names no options


class Strict(NamedTuple):
    """Scores of one answer within 0 and 1. `state` and `closed_accuracy` are None for open questions."""

    state: State | None  # whether a choice could be read
    closed_accuracy: float | None
    exact_match: float
    token_precision: float
    token_recall: float
    token_f1: float
    rouge_l_recall: float
    rouge_l_f: float
    bleu1: float


class Closed(NamedTuple):
    """A closed answer: what was read of it, and whether that is the reference."""

    state: State
    choice: str | None
    correct: bool


def score(question: str, reference: str, answer: str, closed: bool, finish_reason: str = "stop", thoughts: Tags = THINK) -> Strict:
    """All scores of one answer. Its thoughts are no part of it."""
    said, _ = without_thoughts(answer, thoughts)
    expected, given = tokens(reference), tokens(said)
    choice = judge_closed(question, reference, answer, finish_reason, thoughts) if closed else None
    shared = (Counter(expected) & Counter(given)).total()
    common = longest_common(expected, given)
    total = len(expected) + len(given)
    return Strict(
        state=choice.state if choice else None,
        closed_accuracy=float(choice.correct) if choice else None,
        exact_match=float(expected == given),
        token_precision=shared / len(given) if shared else 0.0,
        token_recall=shared / len(expected) if shared else 0.0,
        token_f1=2 * shared / total if shared else 0.0,
        rouge_l_recall=common / len(expected) if common else 0.0,
        rouge_l_f=2 * common / total if common else 0.0,
        bleu1=bleu1(expected, given),
    )


def judge_closed(question: str, reference: str, answer: str, finish_reason: str = "stop", thoughts: Tags = THINK) -> Closed:
    """Yes or no; else one of the alternatives that the question names; else the answer itself. What cannot be read is wrong."""
    if finish_reason in HELD:
        return Closed(HELD[finish_reason], None, False)
    codes = languages(reference)
    if (expected := yes_or_no(reference)) is not None:
        found = read_choice(answer, BINARY, question, finish_reason, thoughts, codes)
        return Closed(*found, found.choice == expected)
    wanted = tokens(reference)
    if tokens(without_thoughts(answer, thoughts)[0]) == wanted:
        return Closed("parsed", reference, True)
    if named := options_of(question, reference):
        found = read_choice(answer, named, question, finish_reason, thoughts)
        said = found.choice or ""
        return Closed(*found, found.choice is not None and wanted in (said.split(), tokens(said), tokens(named[said])))
    found = read_open(answer, reference, question, finish_reason, thoughts)
    return Closed(*found, found.choice == reference)


def read_open(answer: str, reference: str, question: str, finish_reason: str = "stop", thoughts: Tags = THINK) -> Choice:
    """The choice where no options are known: the reference, where the answer says it; else the answer itself, where it is short."""
    said, _ = without_thoughts(visible(answer), thoughts)
    if cut := before_question(said, question):
        said, _ = cut
    found = read_choice(answer, {reference: reference}, question, finish_reason, thoughts)
    if found.choice is not None and not _is_one_of_several(said.lower(), reference):
        return found
    asked = FILLERS | set(tokens(question))
    if (
        found.state == "unparsed"
        and 0 < len(own := [word for word in tokens(said) if word not in asked]) <= FEW
        and not {"not", "no", "neither"} & set(own)
    ):
        return Choice("parsed", " ".join(own))
    return Choice("unparsed") if found.state == "parsed" else found


_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_BOUND = re.compile(
    r"\b(?:less|more|fewer|greater|smaller|larger) than\b|\bor (?:more|less|fewer)\b|"
    r"\bup to\b|\bat (?:least|most)\b|[<>\u2264\u2265]"
)
_EACH_ONE = re.compile(r"\bone (?:in|on|at|of|is|left|right)\b")


_NO_COUNT = re.compile(
    r"\b(?:image|figure|fig|slice|series|panel|view|phase|day|zone|segment|grade|stage|type)s? ?#?\d+(?:\.\d+)?\b|"
    r"\d+(?:\.\d+)?(?:\s?(?:x|×|by|to|-)\s?\d+(?:\.\d+)?)*\s?(?:mm|cm|millimet(?:er|re)s?|centimet(?:er|re)s?|%|percent|hu|years?|months?|weeks?|days?)(?!\w)"
)
"""Numbers that count nothing: of an image, a size, an age."""
_ASSENT = frozenset(["yes", "sure", "certainly", "definitely", "correct", "confirmed", "clearly", "probably", "likely"])


def _is_one_of_several(said: str, reference: str) -> bool:
    """Whether an answer names the reference beside others ("MRI or CT", "CT, MRI", "2 to 4"), or a number only as a bound."""
    pattern = text_pattern(reference).pattern
    words = tokens(reference)
    if words and _NUMBER.fullmatch(words[0]):
        counts = said if _NO_COUNT.search(reference.lower()) else _NO_COUNT.sub(" ", said)
        numbers = {word for word in tokens(_EACH_ONE.sub(" ", counts)) if _NUMBER.fullmatch(word)}
        return not numbers <= set(words) or _BOUND.search(said) is not None
    listed = [tokens(part) for part in re.split(r"[,;.\n]", said.strip(" .\n"))]
    if len(words) == 1 and all(len(part) == 1 for part in listed):  # "CT, MRI", not "Yes, CT." and "CT. CT."
        return any(part != words and part[0] not in _ASSENT for part in listed)
    return re.search(rf"\b(?:or|and|/)\s+(?:an?\s+|the\s+)?(?:{pattern})|(?:{pattern})\s*(?:,|/|\bor\b|\band\b)\s*\w+", said) is not None


def bleu1(reference: list[str], answer: list[str]) -> float:
    """Unigram precision with the brevity penalty, no smoothing."""
    matched = (Counter(reference) & Counter(answer)).total()
    if not matched:
        return 0.0
    return matched / len(answer) * (1.0 if len(answer) > len(reference) else math.exp(1 - len(reference) / len(answer)))


def longest_common(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyro 2004): one long addition a word."""
    positions: dict[str, int] = {}
    for place, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    unmatched = every
    for word in second:
        hit = unmatched & positions.get(word, 0)
        unmatched = (unmatched + hit | unmatched - hit) & every
    return len(first) - unmatched.bit_count()
