"""Metrics of a diagnosis cell, for every weighting of its samples at once.

Weights are counts, `[n, B]`: one row a sample, one column a resample (or a column of ones: the point estimate). A sample
that a resample drew twice weighs 2, so a weighted metric equals the metric of the repeated samples, ties included.
Everything summed is a whole number (confidences in steps of 2^-32), hence exact in float64: neither the order of a sum,
nor the number of threads, nor the machine's vector width can change a result.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SPECIFICITY_TENTHS = 9  # sensitivity is read at 9/10 specificity, compared in whole numbers
OVER_SAMPLES = frozenset({"accuracy", "ece"})  # means over samples; every other metric needs each class
N_BINS = 15  # of the expected calibration error, of equal width
NEAR = 2.0**-20  # of 1: from here on a score is ranked by the others, too
STEP = 2.0**32  # confidences are rounded to 1 / STEP


class Diagnosis(NamedTuple):
    """Metrics for B weightings, each float64 [B]; NaN where undefined. Multi-class: macro average, one class against the rest."""

    auroc: Floats
    auprc: Floats  # average precision
    accuracy: Floats
    balanced_accuracy: Floats
    f1: Floats
    sensitivity_at_90_specificity: Floats
    ece: Floats  # of the predicted class's score


def _ranking(scores: Floats, c: int) -> Floats:
    """What orders samples by class c: its score [n]; where scores near 1 are equal, the rest of the probability decides.

    A softmax in float64 rounds to 1 from a gap of 37 between logits on, while the score of the other class, exp(-gap), is exact to a gap of
    708: the two together order samples as the log-odds do. Without such ties these are the scores themselves.
    """
    score, rest = scores[:, c], np.delete(scores, c, axis=1).sum(axis=1)
    rest = np.where((score > 1 - NEAR) & (rest < NEAR), rest, 0.0)
    if not rest.any():
        return score
    order = np.lexsort((-rest, score))
    differs = (np.diff(score[order]) != 0) | (np.diff(rest[order]) != 0)
    ranks = np.zeros(len(score))
    ranks[order[1:]] = np.cumsum(differs)
    return ranks


class Curve(NamedTuple):
    """Threshold-free metrics of one class against the rest, each float64 [B]."""

    auroc: Floats
    auprc: Floats
    sensitivity: Floats


def metrics(labels: Ints, scores: Floats, weights: Floats) -> Diagnosis:
    """All metrics. `labels` [n] in 0..k-1; `scores` [n, k], finite; `weights` [n, B]."""
    curves = [curve(labels == c, _ranking(scores, c), weights) for c in positive_classes(scores.shape[1])]
    thresholded = _thresholded(labels, scores, weights)
    return Diagnosis(
        auroc=_macro([one.auroc for one in curves]),
        auprc=_macro([one.auprc for one in curves]),
        accuracy=thresholded.accuracy,
        balanced_accuracy=thresholded.balanced_accuracy,
        f1=thresholded.f1,
        sensitivity_at_90_specificity=_macro([one.sensitivity for one in curves]),
        ece=thresholded.ece,
    )


def auroc(labels: Ints, scores: Floats, weights: Floats) -> Floats:
    """AUROC alone, float64 [B]: what the many resamples of a p value need. Arguments as in `metrics`."""
    return _macro([_auroc(labels == c, _ranking(scores, c), weights) for c in positive_classes(scores.shape[1])])


def positive_classes(n_classes: int) -> range:
    """Classes that are held against the rest: class 1 of two, all of more."""
    return range(1, 2) if n_classes == 2 else range(n_classes)


def curve(positive: Bools, score: Floats, weights: Floats) -> Curve:
    """One pass down the ranking. `positive` [n], `score` [n], `weights` [n, B]. NaN where either side is empty."""
    n_positive, n_negative = weights[positive].sum(axis=0), weights[~positive].sum(axis=0)
    hits, alarms = np.zeros_like(n_positive), np.zeros_like(n_positive)  # at or above the threshold
    twice_won, precision_sum, sensitivity = np.zeros_like(hits), np.zeros_like(hits), np.zeros_like(hits)
    allowed = (10 - SPECIFICITY_TENTHS) * n_negative
    for positives, negatives in _descending(positive, score, weights):
        if negatives is not None:
            twice_won += negatives * (2 * hits if positives is None else 2 * hits + positives)
            alarms += negatives
        if positives is not None:
            hits += positives
            precision_sum += positives * hits / np.maximum(hits + alarms, 1)  # 0 / 1 where nothing is drawn yet
            np.copyto(sensitivity, hits, where=10 * alarms <= allowed)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Curve(
            twice_won / (2 * n_positive * n_negative),
            np.where(n_negative > 0, precision_sum / n_positive, np.nan),
            np.where(n_negative > 0, sensitivity / n_positive, np.nan),
        )


def _auroc(positive: Bools, score: Floats, weights: Floats) -> Floats:
    hits = np.zeros(weights.shape[1])
    n_negative, twice_won, won = np.zeros_like(hits), np.zeros_like(hits), np.zeros_like(hits)
    for positives, negatives in _descending(positive, score, weights):
        if negatives is not None:
            np.multiply(negatives, hits, out=won)
            twice_won += won
            twice_won += won
            n_negative += negatives
            if positives is not None:
                twice_won += negatives * positives
        if positives is not None:
            hits += positives
    with np.errstate(invalid="ignore", divide="ignore"):
        return twice_won / (2 * hits * n_negative)


def _descending(positive: Bools, score: Floats, weights: Floats) -> Iterator[tuple[Floats | None, Floats | None]]:
    """Weights of positives and negatives [B] of every distinct score, highest first; None where there are none."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    for start, stop in pairwise([*starts.tolist(), len(order)]):
        if stop - start == 1:
            row = weights[order[start]]
            yield (row, None) if positive[order[start]] else (None, row)
        else:
            tied = order[start:stop]
            inside, outside = tied[positive[tied]], tied[~positive[tied]]
            yield (
                weights[inside].sum(axis=0) if len(inside) else None,
                weights[outside].sum(axis=0) if len(outside) else None,
            )


class _Thresholded(NamedTuple):
    accuracy: Floats
    balanced_accuracy: Floats
    f1: Floats
    ece: Floats


def _thresholded(labels: Ints, scores: Floats, weights: Floats) -> _Thresholded:
    """Metrics at argmax (the lowest class wins a tie). A class-wise average is undefined where a class of it does not occur."""
    n_classes = scores.shape[1]
    classes = np.arange(n_classes)
    predicted = scores.argmax(axis=1)
    correct = predicted == labels
    confidence = np.clip(scores.max(axis=1), 0.0, 1.0)
    bins = np.minimum((confidence * N_BINS).astype(np.int64), N_BINS - 1)
    excess = np.rint((confidence - correct) * STEP)
    is_label, is_predicted = labels[:, None] == classes, predicted[:, None] == classes
    in_bin = (bins[:, None] == np.arange(N_BINS)) * excess[:, None]
    columns = np.hstack([is_label, is_predicted, is_label & is_predicted, in_bin]).astype(np.float64)
    sums = columns.T @ weights  # [3 k + bins, B], exact
    true, called, hit = sums[:n_classes], sums[n_classes : 2 * n_classes], sums[2 * n_classes : 3 * n_classes]
    total = true.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hit / true
        f1 = np.where(true > 0, 2 * hit / (true + called), np.nan)
        ece = np.abs(sums[3 * n_classes :]).sum(axis=0) / STEP / total
        accuracy = hit.sum(axis=0) / total
    return _Thresholded(accuracy, _macro(list(recall)), _macro([f1[c] for c in positive_classes(n_classes)]), ece)


def _macro(values: list[Floats]) -> Floats:
    """Mean over classes in their order; NaN where one of them is."""
    total = np.zeros_like(values[0])
    for value in values:
        total += value
    return total / len(values)
