"""What the study's code computes from an answer (arXiv 2506.17337; in the tradition of the VQA challenge and LLaVA-Med).

Kept with its quirks, so that published figures can be met: see the strict scoring for what a reader would expect. Needs
the standard library only.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

OPEN_RECALL = 0.75  # from here an open answer counts as right
N_PERIODS = 32  # only the first periods are dropped: a regular-expression flag stands where the count belongs
_NUMBER_WORDS = "none zero one two three four five six seven eight nine ten"
NUMBERS = {word: str(max(number, 0)) for number, word in enumerate(_NUMBER_WORDS.split(), start=-1)}
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # not * # % & : ' which stay
NUMBER_WITH_COMMA = re.compile(r"\d,\d")
# A period that no digit follows. The lookbehind that would spare one after a digit is misspelt there, and never bites.
PERIOD = re.compile(r"\.(?!\d)")
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll "
    "how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't "
    "she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's "
    "something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas "
    "wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've "
    "why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)
# Every form that lacks one apostrophe, and one entry that stands the wrong way round in the original list.
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word for word in _CONTRACTED.split() for place, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}  # fmt: skip


class Published(NamedTuple):
    """Scores of one answer, all within 0 and 1."""

    accuracy: float
    exact_match: float
    precision: float
    recall: float
    f1: float
    rouge_l: float
    bleu1: float


def score(reference: str, answer: str, closed: bool) -> Published:
    """All scores. Accuracy: the reference is a substring of the answer (closed), or recall >= 0.75 (open); letter case is ignored."""
    expected, given = reference.lower(), answer.lower()
    reference_words, answer_words = normalise(expected).split(), normalise(given).split()
    precision, recall, f1 = overlap(reference_words, answer_words)
    accuracy = expected in given if closed else recall >= OPEN_RECALL
    return Published(
        accuracy=float(accuracy),
        exact_match=exact_match(reference_words, answer_words),
        precision=precision,
        recall=recall,
        f1=f1,
        rouge_l=rouge_l(" ".join(reference_words), " ".join(answer_words)),
        bleu1=bleu1(reference_words, answer_words),
    )


def normalise(text: str) -> str:
    """VQA-style. A punctuation mark becomes a space, or nothing where it stands next to a space anywhere in the text or the
    text has a number with a comma; number words become digits, articles go, contractions get their apostrophe back."""
    has_comma_number = NUMBER_WITH_COMMA.search(text) is not None
    cleaned = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside_space or has_comma_number else " ")
    words = [NUMBERS.get(word, word) for word in PERIOD.sub("", cleaned, count=N_PERIODS).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def exact_match(reference: list[str], answer: list[str]) -> float:
    """Distinct reference words that the answer has, by the number of answer words: "lung" for "left lung" is 1."""
    return len(set(reference) & set(answer)) / len(answer) if answer else 0.0


def overlap(reference: list[str], answer: list[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of bags of words, where a shared word counts as often as the answer repeats it."""
    shared = sum(word in set(reference) for word in answer)
    if not shared:
        return 0.0, 0.0, 0.0
    missed = sum(word not in set(answer) for word in reference)
    precision, recall = shared / len(answer), shared / (shared + missed)
    return precision, recall, 2 * precision * recall / (precision + recall)


def bleu1(reference: list[str], answer: list[str]) -> float:
    """Unigram precision with the brevity penalty, no smoothing."""
    matched = (Counter(reference) & Counter(answer)).total()
    if not matched:
        return 0.0
    return matched / len(answer) * (1.0 if len(answer) > len(reference) else math.exp(1 - len(reference) / len(answer)))


def rouge_l(reference: str, answer: str) -> float:
    """F-measure over the longest common subsequence, of words of a-z and 0-9."""
    expected, given = (re.findall("[a-z0-9]+", text.lower()) for text in (reference, answer))
    common = longest_common(expected, given)
    return 2 * common / (len(expected) + len(given)) if common else 0.0


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
