"""Choosing among candidates (values of C, epochs) by what they reach on validation data.

The AUROC is computed here, not in `medbench.metrics`, on purpose: a change of a reported metric must not retrain a model.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medbench.adapt.job import weighted_loss


class Score(NamedTuple):
    """What one candidate reached. `auroc` is None where a class is absent from the validation data."""

    auroc: float | None
    loss: float


class Choice(NamedTuple):
    """The chosen candidate, and by what."""

    position: int
    by: Literal["auroc", "loss"]


def score(logits: NDArray[Any], labels: NDArray[np.int64], weights: NDArray[np.float64]) -> Score:
    """Macro one-vs-rest AUROC and class-weighted cross-entropy of logits [n, k]; `weights` [k] are those of the training data."""
    return Score(macro_auroc(logits, labels), weighted_loss(logits, labels, weights))


def macro_auroc(logits: NDArray[Any], labels: NDArray[np.int64]) -> float | None:
    """Mean over classes of the probability that a sample of the class scores above one of the rest (ties half); binary: class 1.

    Scores are softmax over [n, k] logits. None where a class, or its rest, is absent.
    """
    k = logits.shape[1]
    counts = np.bincount(labels, minlength=k)
    if (counts == 0).any() or len(labels) == counts.max():
        return None
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    scores = shifted / shifted.sum(axis=1, keepdims=True)
    return float(np.mean([_auroc(scores[:, c], labels == c) for c in ((1,) if k == 2 else range(k))]))


def _auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    _, position, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[position]  # mid-ranks from 1
    n_positive = int(positive.sum())
    wins = rank[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * (len(scores) - n_positive)))


def choose(scores: Sequence[Score]) -> Choice:
    """The highest AUROC, of equals the lowest loss, of equals the first; by loss alone where an AUROC is undefined."""
    aurocs = [score.auroc for score in scores if score.auroc is not None]
    if len(aurocs) < len(scores):
        return Choice(int(np.argmin([score.loss for score in scores])), "loss")
    best = max(aurocs)
    tied = [index for index, score in enumerate(scores) if score.auroc == best]
    return Choice(min(tied, key=lambda index: scores[index].loss), "auroc")
