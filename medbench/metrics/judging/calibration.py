"""Is a judge to be trusted: what it makes of items whose truth is known. A judge that misses a bar may not judge."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medbench.metrics.judging import HIGHEST, LOWEST, Reading

ACCEPTED = 50.0  # a score of no less counts as right
BARS = {"auroc": 0.95, "sensitivity": 0.90, "specificity": 0.90}
MOST_FALSE_ACCEPTS = 0.10  # of each kind of wrong items
TERSE, WORDY = "synonym", "wordy"


class Item(NamedTuple):
    """An answer whose truth is known; `kind`: what it tries out."""

    kind: str
    is_right: bool
    question: str
    reference: str
    answer: str


class Report(NamedTuple):
    """What a judge made of all items. A judgement that failed counts against it: as 1 of a right item, as 100 of a wrong one."""

    n: int
    n_failed: int
    auroc: float
    sensitivity: float
    specificity: float
    false_accepts: dict[str, float]  # kind of wrong items -> share that is accepted
    wordiness: float  # mean score of right items in many words minus that in few

    @property
    def faults(self) -> list[str]:
        """Bars that it misses, each in words; none: it may judge."""
        missed = [f"{name} {getattr(self, name):.2f}, below {bar:.2f}" for name, bar in BARS.items() if getattr(self, name) < bar]
        over = {kind: share for kind, share in self.false_accepts.items() if share > MOST_FALSE_ACCEPTS}
        return missed + [f"accepts {share:.0%} of kind {kind}, above {MOST_FALSE_ACCEPTS:.0%}" for kind, share in over.items()]


def items(path: Path) -> list[Item]:
    """The set in `resources/judge/calibration.csv`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Item(row["kind"], row["is_right"] == "1", row["question"], row["reference"], row["answer"]) for row in rows]


def report(asked: Sequence[Item], readings: Sequence[Reading]) -> Report:
    """Of one reading an item. Raises ValueError where right or wrong items are missing."""
    right = np.array([item.is_right for item in asked])
    if not right.any() or right.all():
        raise ValueError("a calibration set needs right and wrong items")
    worst = np.where(right, LOWEST, HIGHEST)
    scores = np.array([bad if one.score is None else one.score for bad, one in zip(worst.tolist(), readings, strict=True)], dtype=float)
    good, bad = scores[right], scores[~right]
    kinds = np.array([item.kind for item in asked])
    accepted = scores >= ACCEPTED
    wrong_kinds = dict.fromkeys(item.kind for item in asked if not item.is_right)
    terse, wordy = (scores[right & (kinds == kind)] for kind in (TERSE, WORDY))
    return Report(
        n=len(asked),
        n_failed=sum(one.score is None for one in readings),
        auroc=float(np.mean((good[:, None] > bad) + 0.5 * (good[:, None] == bad))),
        sensitivity=float(accepted[right].mean()),
        specificity=float((~accepted[~right]).mean()),
        false_accepts={kind: float(accepted[~right & (kinds == kind)].mean()) for kind in wrong_kinds},
        wordiness=float(wordy.mean() - terse.mean()) if len(wordy) and len(terse) else 0.0,
    )


def corrected(rate: float, sensitivity: float, specificity: float) -> float | None:
    """A judged rate of right answers, corrected for the judge's own errors (arXiv 2511.21140); None for a judge that tells nothing."""
    told = sensitivity + specificity - 1
    return min(max((rate + specificity - 1) / told, 0.0), 1.0) if told > 0 else None
