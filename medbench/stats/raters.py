"""Noise of raters in the bootstrap: a judge that is asked again gives another score, and every judge of a panel gives its own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medbench.metrics.measure import Bools
from medbench.stats.resamples import Groups, Resamples

Floats = NDArray[np.float64]
STEP = 2.0**32  # deviations are rounded to 1 / STEP, so that their sums are exact


class Ratings(NamedTuple):
    """What several ratings said of a cell's samples, each of which counts as the mean of its own.

    Samples `places` [m] are of the things `things` [m] that were rated, those with the names `keys` [t] and the ratings `values` (t arrays
    of two or more). Things of one name are the same in every cell of a data set, and so is what a resample draws of them.
    """

    columns: frozenset[tuple[str, str]]  # (metric, scoring) that are made of them
    places: NDArray[np.int64]
    things: NDArray[np.int64]
    keys: Sequence[str]
    values: Sequence[Floats]

    def deviations(self, resamples: Resamples, numbers: range) -> Floats:
        """What every thing is off its mean in the resamples `numbers` of one block [t, b], as multiples of 1 / STEP.

        Of k ratings k - 1 are drawn with replacement. The mean of so many varies in the resamples as the mean of k ratings does in truth;
        that of k would vary too little (Rao and Wu 1988, JASA 83).
        """
        made = np.empty((len(self.keys), len(numbers)))
        for row, key, rated in zip(made, self.keys, self.values, strict=True):
            row[:] = rated[resamples.picks(key, len(rated), numbers)].mean(axis=0) - rated.mean()
        return np.rint(made * STEP)

    def shift(self, deviations: Floats, used: Bools, groups: Groups, weights: Floats) -> Floats:
        """What the mean over the samples `used` [n] moves by [b], for weights [groups, b]; NaN where none of them is drawn."""
        own = used[self.places]
        drawn = weights[groups.index[self.places[own]]]
        drawn *= deviations[self.things[own]]
        counts = np.bincount(groups.index[used], minlength=len(groups)) @ weights
        with np.errstate(invalid="ignore", divide="ignore"):
            moved: Floats = drawn.sum(axis=0) / counts / STEP
        return moved
