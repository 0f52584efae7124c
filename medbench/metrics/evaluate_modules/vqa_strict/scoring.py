"""Strict scores of an answer: what a reader would expect of the words. Needs the standard library only.

The two last functions also stand in the published scoring, so that each folder can be used on its own.
"""

import math
import re
import unicodedata
from collections import Counter
from typing import NamedTuple

_UNITS = "zero one two three four five six seven eight nine ten"
_TEENS = "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
_AUXILIARIES = "is are was were do does did can could has have had will would should may might must"
_ASKING = "what which where when who whose why how"
_FILLERS = "there this that these those it its in on at of to by for from with as image picture scan"
NUMBERS = {word: str(number) for number, word in enumerate(f"{_UNITS} {_TEENS}".split())}
ARTICLES = ("a", "an", "the")
AUXILIARIES, ASKING = frozenset(_AUXILIARIES.split()), frozenset(_ASKING.split())
FILLERS = AUXILIARIES | frozenset(_FILLERS.split())


class Strict(NamedTuple):
    """Scores of one answer within 0 and 1. `parsed` and `closed_accuracy` are None where they do not apply."""

    parsed: bool | None  # could a choice be read; None: open, or closed without alternatives to choose from
    closed_accuracy: float | None
    exact_match: float
    token_precision: float
    token_recall: float
    token_f1: float
    rouge_l_recall: float
    rouge_l_f: float
    bleu1: float


class Closed(NamedTuple):
    """A closed answer: whether a choice could be read (None: there are no options) and whether it is right."""

    parsed: bool | None
    correct: bool


def score(question: str, reference: str, answer: str, closed: bool) -> Strict:
    """All scores of one answer."""
    expected, given = tokens(reference), tokens(answer)
    choice = judge_closed(question, expected, given) if closed else None
    shared = (Counter(expected) & Counter(given)).total()
    common = longest_common(expected, given)
    total = len(expected) + len(given)
    return Strict(
        parsed=choice.parsed if choice else None,
        closed_accuracy=float(choice.correct) if choice else None,
        exact_match=float(expected == given),
        token_precision=shared / len(given) if shared else 0.0,
        token_recall=shared / len(expected) if shared else 0.0,
        token_f1=2 * shared / total if shared else 0.0,
        rouge_l_recall=common / len(expected) if common else 0.0,
        rouge_l_f=2 * common / total if common else 0.0,
        bleu1=bleu1(expected, given),
    )


def tokens(text: str) -> list[str]:
    """Words after NFKC, lower-cased, without punctuation and articles, number words as digits.

    An apostrophe vanishes, other punctuation parts words, and a point or comma between digits stays: 1.5 is not 15. Signs
    stay (ER+ is not ER-negative). Where nothing would be left (a reference "A"), what was there stays.
    """
    lowered = unicodedata.normalize("NFKC", text).lower().strip()
    spaced = re.sub(r"(?<!\d)[.,]|[.,](?!\d)", " ", re.sub("['\u2018\u2019]", "", lowered))
    parted = "".join(" " if _is_punctuation(letter) else letter for letter in spaced)
    words = [NUMBERS.get(word, word) for word in parted.split()]
    return [word for word in words if word not in ARTICLES] or words or lowered.split()


def _is_punctuation(letter: str) -> bool:
    return (letter not in ".," and unicodedata.category(letter)[0] == "P") or letter in "`^"


def judge_closed(question: str, reference: list[str], answer: list[str]) -> Closed:
    """Yes or no; else one of the alternatives that the question names; else the whole answer. What cannot be read is wrong."""
    if reference in (["yes"], ["no"]):
        choice = yes_or_no(answer)
        return Closed(choice is not None, [choice] == reference)
    named = options(question, reference)
    if not named:
        return Closed(None, reference == answer)
    found = [option for option in named if _contains(answer, option)]
    found = [option for option in found if not any(_contains(other, option) for other in found if other != option)]
    return Closed(len(found) == 1, found == [reference])


def yes_or_no(answer: list[str]) -> str | None:
    """A leading yes or no, else the only one of the two that occurs, else None."""
    if answer and answer[0] in ("yes", "no"):
        return answer[0]
    found = {"yes", "no"} & set(answer)
    return found.pop() if len(found) == 1 else None


def options(question: str, reference: list[str]) -> list[list[str]]:
    """Alternatives that a question names ("A or B", "A, B or C"), as words; none where the reference is not among them.

    Where the first begins and the last ends ("in the left or right lung") cannot be seen from the question: such an end is
    the reference where it has the reference's words, else it is known by its word beside the "or".
    """
    for sentence in re.split(r"[?!:;]|\.(?!\d)", unicodedata.normalize("NFKC", question).lower()):
        pieces = [words for piece in re.split(r",|\bor\b", sentence) if (words := tokens(piece))]
        openers = [place for place, words in enumerate(pieces) if words[0] in AUXILIARIES | ASKING]
        pieces = pieces[openers[-1] if openers else 0 :]
        if not re.search(r"\bor\b", sentence) or len(pieces) < 2:
            continue
        first, *middle, last = pieces
        inner = [_end(first, -len(reference), None, reference)] if first[0] not in ASKING or not middle else []
        # else "which is larger, A or B": what comes before the first comma is no alternative
        named = [words for words in (*inner, *middle, _end(last, None, len(reference), reference)) if words]
        if reference in named and len(named) > 1:
            return named
    return []


def _end(piece: list[str], start: int | None, stop: int | None, reference: list[str]) -> list[str]:
    """The alternative at the end (`start` below 0) or at the beginning of a piece of a question."""
    if piece[start:stop] == reference:
        return reference
    telling = [word for word in piece if word not in FILLERS]
    return telling[:1] if start is None else telling[-1:]


def _contains(words: list[str], part: list[str]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words) - len(part) + 1))


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
