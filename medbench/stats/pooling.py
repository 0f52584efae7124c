"""Pooling a family's gaps over its data sets: random effects with the Hartung-Knapp interval."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from medbench.stats import student

MIN_STUDIES = 3  # with two, the t quantile alone (12.7) makes an interval meaningless


class Pooled(NamedTuple):
    """Mean effect over `k` data sets; None below three. `tau2`: variance between data sets."""

    k: int
    mean: float | None
    low: float | None
    high: float | None
    tau2: float | None
    reason: str | None = None


def hartung_knapp(effects: Sequence[float], sds: Sequence[float], level: float) -> Pooled:
    """DerSimonian-Laird weights, t interval with k - 1 degrees of freedom (IntHout 2014).

    Its scale is not let below 1 (Roever 2015): effects that agree by chance must not give an interval narrower than the
    data sets' own uncertainty allows.
    """
    k = len(effects)
    if k < MIN_STUDIES:
        return Pooled(k, None, None, None, None, f"k = {k}: pooled from {MIN_STUDIES} data sets up")
    if min(sds) <= 0:
        return Pooled(k, None, None, None, None, "a gap without variance cannot be weighted")
    fixed = [1 / sd**2 for sd in sds]
    centre = _mean(effects, fixed)
    heterogeneity = math.fsum(w * (e - centre) ** 2 for w, e in zip(fixed, effects, strict=True))
    tau2 = max(0.0, (heterogeneity - (k - 1)) / (math.fsum(fixed) - math.fsum(w * w for w in fixed) / math.fsum(fixed)))
    weights = [1 / (sd**2 + tau2) for sd in sds]
    mean = _mean(effects, weights)
    scale = math.fsum(w * (e - mean) ** 2 for w, e in zip(weights, effects, strict=True)) / (k - 1)
    reach = student.quantile((1 + level) / 2, k - 1) * math.sqrt(max(1.0, scale) / math.fsum(weights))
    return Pooled(k, mean, mean - reach, mean + reach, tau2)


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)
