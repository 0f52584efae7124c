"""Tests on paired replicates: a gap's p value, the verdict over two sets of models, Holm's adjustment, what could have been shown."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from medbench.stats.intervals import percentiles

Floats = NDArray[np.float64]
T = TypeVar("T")
Verdict = Literal["generalist", "specialist", "equivalent", "undecided"]
POWER = 0.8  # of the minimum detectable difference that a comparison could have shown


class PairedGap(NamedTuple):
    """A difference of two cells on the same resamples, in the metric's unit. All None where it is not defined often enough."""

    sd: float | None
    low: float | None
    high: float | None
    inner_low: float | None  # interval of the equivalence test: 90% for a 95% interval
    inner_high: float | None
    p: float | None  # two-sided
    detectable: float | None
    reason: str | None


class SetTest(NamedTuple):
    """One-sided p values of two sets: some generalist beats every specialist, and the other way round."""

    p_generalist: float
    p_specialist: float

    @property
    def p(self) -> float:
        """Two-sided."""
        return min(1.0, 2 * min(self))


def paired_gap(differences: Floats, n_resamples: int, level: float) -> PairedGap:
    """Interval and sd of a gap from the first `n_resamples` differences [B], p from all of them (NaN: undefined in one cell)."""
    interval, inner = percentiles(differences[:n_resamples], [level, 2 * level - 1])
    if interval.sd is None:
        return PairedGap(None, None, None, None, None, None, None, interval.reason)
    if np.nanmin(differences) == np.nanmax(differences):
        return PairedGap(None, None, None, None, None, None, None, "every resample gives the same gap, which is no certainty: no verdict")
    p = min(1.0, 2 * min(p_above(differences), p_above(-differences)))
    detectable = minimum_detectable_difference(interval.sd, level)
    return PairedGap(interval.sd, interval.low, interval.high, inner.low, inner.high, p, detectable, None)


def p_above(differences: Floats) -> float:
    """One-sided p that the difference is above 0: (1 + #{d <= 0}) / (B + 1) over the B defined resamples; 1 where there is none."""
    defined = differences[~np.isnan(differences)]
    return (1 + int(np.count_nonzero(defined <= 0))) / (len(defined) + 1)


def minimum_detectable_difference(sd: float, level: float) -> float:
    """Gap that a two-sided test at `level` would have shown with a power of 80%."""
    return (NormalDist().inv_cdf((1 + level) / 2) + NormalDist().inv_cdf(POWER)) * sd


def set_test(differences: Mapping[tuple[T, T], Floats]) -> SetTest:
    """Test the sets instead of the best by point estimate, which were picked on the same data.

    `differences`: generalist - specialist [B] for every pair.
    """
    return SetTest(p_ahead(differences), p_ahead({(s, g): -d for (g, s), d in differences.items()}))


def p_ahead(differences: Mapping[tuple[T, T], Floats]) -> float:
    """One-sided p that some of the first beats every one of the second; `differences`: first - second [B] for every pair.

    That one beats all is an intersection, so its p is the largest over the second; that some does is a union over the
    first, so Bonferroni: p = |F| min_f max_s p(f > s), at most 1.
    """
    hardest: dict[T, float] = {}
    for (first, _), values in differences.items():
        hardest[first] = max(hardest.get(first, 0.0), p_above(values))
    return min(1.0, len(hardest) * min(hardest.values()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p values, in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def verdict(sets: SetTest, p_adjusted: float, gap: PairedGap, level: float, margin: float) -> Verdict:
    """The side shown to be ahead, else `equivalent` where the published pair's inner interval lies within the margin, else `undecided`."""
    if p_adjusted <= 1 - level:
        return "generalist" if sets.p_generalist < sets.p_specialist else "specialist"
    if gap.inner_low is not None and gap.inner_high is not None and -margin <= gap.inner_low and gap.inner_high <= margin:
        return "equivalent"
    return "undecided"
