"""Tests on paired replicates: a gap's p value, the verdict over two sets of models, Holm's adjustment, what could have been shown."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from medbench.stats.intervals import DECIMALS, one_sided_p, percentile, quantile

Floats = NDArray[np.float64]
T = TypeVar("T")
Verdict = Literal["generalist", "specialist", "equivalent", "undecided"]
POWER = 0.8  # of the minimum detectable difference that a comparison could have shown


class PairedGap(NamedTuple):
    """A difference of two cells on the same resamples, in the metric's unit. All None where it is seldom defined or never varies."""

    sd: float | None
    low: float | None
    high: float | None
    p: float | None  # two-sided
    detectable: float | None  # by this one pair
    reason: str | None


class Ahead(NamedTuple):
    """One-sided test that some of `n_candidates` beats every rival: p of the hardest pair, times the candidates (Bonferroni)."""

    share: float  # of the hardest pair's resamples, on the other side
    n_candidates: int
    effective_groups: float | None = None  # None: unknown, and the share is p

    @property
    def p(self) -> float:
        """At most 1."""
        return min(1.0, self.n_candidates * one_sided_p(self.share, self.effective_groups))


class SetTest(NamedTuple):
    """Two sets: some generalist beats every specialist, the other way round, and neither is worse by the margin."""

    generalist: Ahead
    specialist: Ahead
    equivalent: Ahead
    n_resamples: int

    @property
    def ahead(self) -> Ahead:
        """The side with the smaller p."""
        return min(self.generalist, self.specialist, key=lambda side: side.p)

    @property
    def p(self) -> float:
        """Two-sided, that one side is ahead."""
        return min(1.0, 2 * self.ahead.p)


def paired_gap(differences: Floats, level: float, effective_groups: float | None = None) -> PairedGap:
    """Interval, sd and p of a gap from the same differences [B] (NaN: undefined in one cell), both expanded for few groups."""
    within = 1 - 2 * NormalDist().cdf(-quantile((1 - level) / 2, effective_groups))
    interval = percentile(differences, round(within, DECIMALS))
    if interval.sd is None:
        return PairedGap(None, None, None, None, None, interval.reason)
    defined = differences[~np.isnan(differences)]
    if defined.min() == defined.max():
        return PairedGap(None, None, None, None, None, "every resample gives the same gap, which is no certainty: no verdict")
    p = min(1.0, 2 * one_sided_p(min(p_above(defined), p_above(-defined)), effective_groups))
    detectable = minimum_detectable_difference(interval.sd, level, effective_groups=effective_groups)
    return PairedGap(interval.sd, interval.low, interval.high, p, detectable, None)


def p_above(differences: Floats) -> float:
    """Share of resamples against a difference above 0: (1 + #{d <= 0}) / (B + 1) over the B defined ones; 1 where there is none."""
    defined = differences[~np.isnan(differences)]
    return (1 + int(np.count_nonzero(defined <= 0))) / (len(defined) + 1)


def minimum_detectable_difference(
    sd: float, level: float, n_generalists: int = 1, n_specialists: int = 1, n_rows: int = 1, effective_groups: float | None = None
) -> float:
    """Gap at which either side's verdict, adjusted for its candidates and Holm's `n_rows`, comes with a power of 80%.

    A candidate must beat every rival: with a power of 0.8^(1/rivals) against each it does so in 80% at least (Sidak's inequality,
    rivals being positively correlated), so this is an upper bound where there are several.
    """
    sides = (n_generalists, n_specialists), (n_specialists, n_generalists)
    return sd * max(
        quantile((1 - level) / (2 * n_rows * own), effective_groups) + NormalDist().inv_cdf(POWER ** (1 / rivals)) for own, rivals in sides
    )


def set_test(differences: Mapping[tuple[T, T], Floats], margin: float, effective_groups: float | None = None) -> SetTest:
    """Test the sets instead of the best by point estimate, which were picked on the same data.

    `differences`: generalist - specialist [B] for every pair. Equivalent: two one-sided tests (TOST), that some generalist is less
    than the margin below every specialist, and the other way round; the larger p counts.
    """
    below = {(s, g): -d for (g, s), d in differences.items()}
    both = ahead(differences, margin, effective_groups), ahead(below, margin, effective_groups)
    n_resamples = min(len(d) for d in differences.values())
    sides = ahead(differences, 0.0, effective_groups), ahead(below, 0.0, effective_groups)
    return SetTest(*sides, max(both, key=lambda side: side.p), n_resamples)


def ahead(differences: Mapping[tuple[T, T], Floats], margin: float = 0.0, effective_groups: float | None = None) -> Ahead:
    """That some of the first is ahead of every one of the second, or less than `margin` behind; `differences`: first - second [B].

    That one beats all is an intersection, so its p is the largest over the second; that some does is a union over the
    first, so Bonferroni: p = |F| min_f max_s p(f - s > -margin).
    """
    hardest: dict[T, float] = {}
    for (first, _), values in differences.items():
        hardest[first] = max(hardest.get(first, 0.0), p_above(values + margin))
    return Ahead(min(hardest.values()), len(hardest), effective_groups)


def selection_bias(firsts: Sequence[Floats], seconds: Sequence[Floats]) -> float:
    """Best of `firsts` minus best of `seconds` as it would be on average if all were equal, in the metric's unit.

    Each is the replicates [B] of one candidate, all less those of the same one. The replicates are centred, so that nobody is better;
    the best of the more candidates still is above the best of the fewer.
    """
    best = []
    for side in (firsts, seconds):
        values = np.array(side)
        best.append((values - np.nanmean(values, axis=1, keepdims=True)).max(axis=0))
    return round(float(np.nanmean(best[0] - best[1])), DECIMALS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p values, in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def verdict(sets: SetTest, p_ahead: float, p_equivalent: float, level: float) -> Verdict | None:
    """The side shown to be ahead, else `equivalent`, else `undecided`, by p values that Holm adjusted.

    None where the p value that decides lies so near to 1 - level that other resamples could say otherwise.
    """
    alpha = 1 - level
    if is_near(p_ahead, sets.ahead, sets.n_resamples, alpha):
        return None
    if p_ahead <= alpha:
        return "generalist" if sets.generalist.p < sets.specialist.p else "specialist"
    if is_near(p_equivalent, sets.equivalent, sets.n_resamples, alpha):
        return None
    return "equivalent" if p_equivalent <= alpha else "undecided"


def is_within(p_equivalent: float, level: float) -> bool:
    """Whether a side that is ahead is within the margin, too: of two claims about one gap, so each has half of 1 - level."""
    return p_equivalent <= (1 - level) / 2


def is_near(p_adjusted: float, test: Ahead, n_resamples: int, alpha: float) -> bool:
    """Whether a p value is within two Monte Carlo standard errors of alpha: of the binomial share behind it, adjusted likewise."""
    error = math.sqrt(test.share * (1 - test.share) / n_resamples)
    adjustment = p_adjusted / one_sided_p(test.share, test.effective_groups)
    low, high = (adjustment * one_sided_p(test.share + side * 2 * error, test.effective_groups) for side in (-1, 1))
    return low <= alpha <= high
