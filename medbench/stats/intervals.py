"""Intervals of one statistic from its bootstrap replicates. A null comes with a reason, never with a number that stands for it."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medbench.stats import student

Floats = NDArray[np.float64]
MIN_GROUPS = 10  # effective groups; from fewer, no interval: its coverage falls to a third
DECIMALS = 12  # of what goes through log and tanh, whose last bit is the machine's own


class Interval(NamedTuple):
    """`sd` and limits in the statistic's unit; `n_undefined`: replicates in which it is undefined and which are left out."""

    sd: float | None
    low: float | None
    high: float | None
    n_undefined: int
    reason: str | None = None


def percentile(replicates: Floats, level: float) -> Interval:
    """Central interval of the replicates [B] (NaN: undefined), as the study publishes it. Null where under half are defined."""
    defined, n_undefined, reason = _defined(replicates)
    if reason:
        return Interval(None, None, None, n_undefined, reason)
    low, high = at_shares(defined, (1 - level) / 2, (1 + level) / 2)
    return Interval(standard_deviation(defined), low, high, n_undefined)


def logit(estimate: float, replicates: Floats, level: float, effective_groups: float) -> Interval:
    """estimate +- t sd on the logit scale, for statistics within 0 and 1: stays inside, and covers better near 1 and with few groups.

    t: `quantile`. The sd is carried to the logit scale by the slope 1 / (e (1 - e)), since single replicates may lie on a bound. An
    estimate of 0 or 1 has no variance and no finite logit: its other limit is the exact binomial one (Clopper-Pearson) of
    `effective_groups`.
    """
    defined, n_undefined, reason = _defined(replicates)
    if not reason and not 0 <= estimate <= 1:
        reason = f"the estimate is {estimate:g}, outside 0 and 1"
    if reason:
        return Interval(None, None, None, n_undefined, reason)
    sd = standard_deviation(defined)
    if estimate in (0, 1):
        bound = round(((1 - level) / 2) ** (1 / max(effective_groups, 1.0)), DECIMALS)
        return Interval(sd, bound, 1.0, n_undefined) if estimate == 1 else Interval(sd, 0.0, 1 - bound, n_undefined)
    centre = math.log(estimate / (1 - estimate))
    reach = quantile((1 - level) / 2, effective_groups) * sd / (estimate * (1 - estimate))
    low, high = (round(0.5 + math.tanh((centre + side * reach) / 2) / 2, DECIMALS) for side in (-1, 1))
    return Interval(sd, low, high, n_undefined)


def quantile(tail: float, effective_groups: float | None) -> float:
    """How many sd of the bootstrap leave a probability of `tail` beyond: t sqrt(n / (n - 1)) with n - 1 degrees of freedom.

    As for a mean of n values, whose bootstrap has a sd too small by that factor, and itself uncertain (Hesterberg 2015). n: effective
    groups, as the number of clusters in a cluster-robust t test (Carter, Schnepel and Steigerwald 2017). None, where they are
    unknown: the normal quantile.
    """
    if effective_groups is None:
        return -NormalDist().inv_cdf(tail)
    n = max(effective_groups, 2.0)
    return -student.quantile(tail, n - 1) * math.sqrt(n / (n - 1))


def one_sided_p(share: float, effective_groups: float | None) -> float:
    """p where a `share` of the resamples lies on the other side: the inverse of `quantile`, from shares of a normal distribution.

    The interval that belongs to it is Hesterberg's expanded percentile interval.
    """
    if effective_groups is None or not 0 < share < 1:
        return share
    n = max(effective_groups, 2.0)
    return student.cdf(NormalDist().inv_cdf(share) * math.sqrt((n - 1) / n), n - 1)


def bca(estimate: float, replicates: Floats, level: float, jackknife: Callable[[], Floats]) -> Interval:
    """Bias-corrected and accelerated (Efron 1987). `jackknife`: the statistic without each group in turn [G]."""
    defined, n_undefined, reason = _defined(replicates)
    normal = NormalDist()
    below = (np.count_nonzero(defined < estimate) + np.count_nonzero(defined == estimate) / 2) / max(len(defined), 1)
    if not reason and not 0 < below < 1:
        reason = "all replicates lie on one side of the estimate"
    if reason:
        return Interval(None, None, None, n_undefined, reason)
    left_out = jackknife()
    away = (left_out := left_out[~np.isnan(left_out)]).mean() - left_out
    spread = float((away**2).sum())
    acceleration = float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    bias = normal.inv_cdf(below)

    def position(share: float) -> float:
        z = bias + normal.inv_cdf(share)
        return normal.cdf(bias + z / (1 - acceleration * z))

    low, high = at_shares(defined, position((1 - level) / 2), position((1 + level) / 2))
    return Interval(standard_deviation(defined), round(low, DECIMALS), round(high, DECIMALS), n_undefined)


def at_shares(values: Floats, *shares: float) -> list[float]:
    """Quantiles of values [n], linear between neighbours: bit by bit those of numpy.quantile.

    That one imports numpy.ma, 20 ms of a job, and takes four to eight times as long a call.
    """
    ordered, found = np.sort(values), []
    for share in shares:
        place = share * (len(ordered) - 1)
        below = int(place)
        low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
        part = place - below
        found.append(low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part))
    return found


def standard_deviation(values: Floats) -> float:
    """Sample standard deviation (n - 1), summed exactly."""
    mean = math.fsum(values.tolist()) / len(values)  # a list: fsum takes half the time over it
    return math.sqrt(math.fsum(((values - mean) ** 2).tolist()) / (len(values) - 1))


def _defined(replicates: Floats) -> tuple[Floats, int, str | None]:
    defined = replicates[~np.isnan(replicates)]
    n_undefined = len(replicates) - len(defined)
    if len(defined) < max(2, len(replicates) / 2):
        return defined, n_undefined, f"undefined in {n_undefined} of {len(replicates)} resamples"
    return defined, n_undefined, None
