"""The mean of people's labels from few labels and many judgements: prediction-powered inference (Angelopoulos 2023, PPI++ 2311.01453)."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medbench.stats import student

Floats = NDArray[np.float64]
MIN_GROUPS = 10  # under so many labelled groups there is no interval


class Corrected(NamedTuple):
    """The mean of people's labels over all samples; `low`, `high`: its interval, None with a reason."""

    estimate: float | None
    low: float | None
    high: float | None
    judged: float  # mean of the judge over all samples, uncorrected
    n_labelled: int
    n_groups: int  # groups of the labelled samples
    weight: float  # how much the judge is trusted: 0 leaves people's mean alone
    reason: str | None = None


def corrected_mean(judged: Floats, labels: Floats, groups: NDArray[np.int64], level: float) -> Corrected:
    """From judgements [n] of all samples and people's labels [n], NaN where there is none; `groups` [n] are resampled units.

    Labelled samples must be drawn at random. The mean is that of label minus `weight` x judgement over the labelled ones plus `weight`
    x the mean judgement of the others; `weight` minimises its variance. Variances are of whole groups, which may hold samples of both.
    """
    known = np.isfinite(labels)
    n, rest = int(known.sum()), int((~known).sum())
    n_groups = len(np.unique(groups[known]))
    overall = float(judged.mean()) if len(judged) else math.nan
    if n < 2 or n_groups < 2:
        return Corrected(None, None, None, overall, n, n_groups, 0.0, f"{n} labels of {n_groups} groups: too few")
    own, said = labels[known], judged[known]
    spread = float(np.var(judged, ddof=1))
    weight = 0.0
    if rest and spread > 0:
        weight = min(max(float(np.cov(own, said)[0, 1]) / ((1 + n / rest) * spread), 0.0), 1.0)
    corrections = own - weight * said
    estimate = float(corrections.mean())
    shares = np.zeros(len(judged))  # of every sample in the estimate's error
    shares[known] = (corrections - estimate) / n
    if weight:
        mean = float(judged[~known].mean())
        estimate += weight * mean
        shares[~known] = weight * (judged[~known] - mean) / rest
    variance = _variance(shares, groups) if weight else _variance(shares[known], groups[known])
    if n_groups < MIN_GROUPS:
        return Corrected(estimate, None, None, overall, n, n_groups, weight, f"{n_groups} labelled groups, fewer than {MIN_GROUPS}")
    if variance <= 0:
        return Corrected(estimate, None, None, overall, n, n_groups, weight, "labels without variance")
    reach = student.quantile((1 + level) / 2, n_groups - 1) * math.sqrt(variance)
    return Corrected(estimate, estimate - reach, estimate + reach, overall, n, n_groups, weight)


def _variance(shares: Floats, groups: NDArray[np.int64]) -> float:
    """Of the sum of shares [n] that sum to 0 on average, whose two or more groups are drawn whole."""
    _, place = np.unique(groups, return_inverse=True)
    sums = np.bincount(place, weights=shares)
    return float(len(sums) / (len(sums) - 1) * (sums**2).sum())
