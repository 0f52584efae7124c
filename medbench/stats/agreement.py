"""How well ratings of the same items agree: between judges, between repeats of one, between a judge and people."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Agreement(NamedTuple):
    """Of ratings [items, raters]; None where too little is rated, or where nothing differs so that agreement by chance is all there is."""

    n: int  # items that at least two raters rated
    alpha: float | None  # Krippendorff's, interval
    icc: float | None  # ICC(2,1): two-way random effects, absolute agreement, one rater
    mean_difference: float | None  # absolute, over pairs of raters
    share_over: float | None  # share of such pairs that differ by more than the bound


def agreement(ratings: Floats, bound: float = 10.0) -> Agreement:
    """Of ratings [items, raters], NaN where a rater has none."""
    rated = np.isfinite(ratings)
    several = ratings[rated.sum(axis=1) > 1]
    complete = ratings[rated.all(axis=1)]
    first, second = np.triu_indices(ratings.shape[1], 1)
    differences = np.abs(several[:, first] - several[:, second])
    differences = differences[np.isfinite(differences)]
    return Agreement(
        n=len(several),
        alpha=alpha(several),
        icc=icc(complete),
        mean_difference=float(differences.mean()) if differences.size else None,
        share_over=float((differences > bound).mean()) if differences.size else None,
    )


def alpha(ratings: Floats) -> float | None:
    """Krippendorff's alpha for interval data: 1 minus observed over expected squared differences, missing ratings left out (2011)."""
    rated = np.isfinite(ratings)
    used = rated.sum(axis=1) > 1
    values, counts = ratings[used], rated[used].sum(axis=1)
    if not len(values):
        return None
    pooled = values[np.isfinite(values)]
    expected = pooled.var(ddof=1)
    # the sum of squared differences over pairs within an item is counts^2 times its variance
    observed = float((counts**2 * np.nanvar(values, axis=1) / (counts - 1)).sum()) / len(pooled)
    return 1 - observed / expected if expected > 0 else None


def icc(ratings: Floats) -> float | None:
    """ICC(2,1) of complete ratings [n, k] (Shrout and Fleiss 1979)."""
    n, k = ratings.shape
    if n < 2 or k < 2:
        return None
    items, raters, grand = ratings.mean(axis=1), ratings.mean(axis=0), ratings.mean()
    between_items = k * ((items - grand) ** 2).sum() / (n - 1)
    between_raters = n * ((raters - grand) ** 2).sum() / (k - 1)
    rest = ((ratings - items[:, None] - raters + grand) ** 2).sum() / ((n - 1) * (k - 1))
    below = between_items + (k - 1) * rest + k * (between_raters - rest) / n
    return float((between_items - rest) / below) if below > 0 else None


def kappa(first: NDArray[np.int64], second: NDArray[np.int64], n_levels: int) -> float | None:
    """Cohen's kappa with quadratic weights of levels 0 to `n_levels` - 1; None where either rater knows one level only."""
    table = np.zeros((n_levels, n_levels))
    np.add.at(table, (first, second), 1)
    steps = np.arange(n_levels)
    weights = (steps[:, None] - steps) ** 2
    expected = (weights * np.outer(table.sum(axis=1), table.sum(axis=0))).sum() / max(table.sum(), 1)
    return float(1 - (weights * table).sum() / expected) if expected > 0 else None
