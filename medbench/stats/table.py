"""The rows of an intervals table: every measure of a scored cell with its intervals and replicates."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from medbench.metrics.measure import BELOW_ZERO, Bools, Measure
from medbench.stats.intervals import MIN_GROUPS, Interval, bca, logit, percentile
from medbench.stats.raters import Ratings
from medbench.stats.resamples import BLOCK, Groups, Resamples

Floats = NDArray[np.float64]
PUBLISHED_RESAMPLES, PUBLISHED_LEVEL = 1000, 0.95  # of the study
NUMBERS = 1 << 24  # of weights at a time [128 MB]


class Scored(Protocol):
    """A scored cell: its samples as arrays, and every measure of it for any weighting of its groups."""

    @property
    def ids(self) -> list[str]:
        """Of the samples [n]."""
        ...

    @property
    def groups(self) -> Groups:
        """Of the samples."""
        ...

    @property
    def ratings(self) -> tuple[Ratings, ...]:
        """Of samples that were rated more than once, whose ratings are drawn anew in every resample."""
        ...

    def measures(self) -> list[Measure]:
        """In the order of the table."""
        ...

    def used(self, measure: Measure) -> Bools:
        """The samples [n] that are not null for a measure: a score that is not finite, another answer type."""
        ...

    def effective_groups(self, measure: Measure) -> float:
        """Effective groups behind a measure: of the rarest class where it needs every class, else of the samples used."""
        ...

    def evaluate(self, measures: Sequence[Measure], weights: Floats) -> dict[Measure, Floats]:
        """Values [B] for weights [groups, B]; NaN where undefined."""
        ...

    def why_undefined(self, measure: Measure) -> str:
        """In words."""
        ...

    def by_sample(self) -> "Scored":
        """The cell with every sample as a group of its own."""
        ...

    def without(self, dropped: Bools) -> "Scored":
        """The cell with more samples null."""
        ...


class Plan(NamedTuple):
    """How many resamples, and how many of the measures that decide; whether BCa too; fewer effective groups than `min_groups` are few.

    `published`: whether rows as published too.
    """

    n_resamples: int
    n_test_resamples: int
    level: float
    bca: bool
    min_groups: int
    published: bool = True


class Row(NamedTuple):
    """One row of table `intervals`, less the digest of its samples."""

    measure: Measure
    method: str
    estimate: float | None
    interval: Interval
    n: int
    n_groups: int
    effective_groups: float
    few_groups: bool
    n_resamples: int
    replicates: Floats | None  # percentile rows only


def shortage(effective: float, least: int) -> str:
    """`9 effective groups, fewer than 10`."""
    return f"{int(effective)} effective group{'' if int(effective) == 1 else 's'}, fewer than {least}"


def estimates(cell: Scored, measures: Sequence[Measure]) -> dict[Measure, float]:
    """Point estimates; NaN where undefined."""
    ones = np.ones((len(cell.groups), 1))
    return {measure: float(values[0]) for measure, values in cell.evaluate(measures, ones).items()}


def replicates(cell: Scored, measures: Sequence[Measure], resamples: Resamples, n_resamples: int) -> dict[Measure, Floats]:
    """Every measure on the first `n_resamples` resamples, in their order. Ratings of one sample are drawn anew in each, too."""
    at_once = min(max(1, NUMBERS // len(cell.ids)), BLOCK)  # a measure spreads them over the samples
    parts, start = list[dict[Measure, Floats]](), 0
    for weights in resamples.weights(n_resamples, at_once):
        part, numbers = cell.evaluate(measures, weights), range(start, start + weights.shape[1])
        for ratings in cell.ratings:
            if rated := [measure for measure in measures if measure[:2] in ratings.columns]:
                deviations = ratings.deviations(resamples, numbers)
                part |= {one: part[one] + ratings.shift(deviations, cell.used(one), cell.groups, weights) for one in rated}
        parts.append(part)
        start = numbers.stop
    return {measure: np.concatenate([part[measure] for part in parts]) for measure in measures}


def published(cell: Scored, measures: Sequence[Measure], resamples: Resamples, drawn: dict[Measure, Floats]) -> dict[Measure, Floats]:
    """Every measure on resamples of samples instead of groups, as the study publishes it. `drawn`: on resamples of groups."""
    if cell.groups.unit == "group":
        return replicates(cell.by_sample(), measures, resamples.of(len(cell.ids)), PUBLISHED_RESAMPLES)
    if min(map(len, drawn.values())) < PUBLISHED_RESAMPLES:
        return replicates(cell, measures, resamples, PUBLISHED_RESAMPLES)
    return {measure: values[:PUBLISHED_RESAMPLES] for measure, values in drawn.items()}


def rows(cell: Scored, primary: Measure, resamples: Resamples, plan: Plan, also: Sequence[Measure] = ()) -> list[Row]:
    """All rows of a cell. An undefined measure is a row of nulls with its reason; the others still come out.

    `primary`, and what decides `also`, get `n_test_resamples`.
    """
    measures = cell.measures()
    points = estimates(cell, measures)
    drawn = replicates(cell, measures, resamples, plan.n_resamples)
    by_sample = published(cell, measures, resamples, drawn) if plan.published else {}
    if plan.n_test_resamples > plan.n_resamples:
        drawn |= replicates(cell, [measure for measure in (primary, *also) if measure in measures], resamples, plan.n_test_resamples)
    return [row for measure in measures for row in _rows(cell, measure, points[measure], drawn[measure], by_sample.get(measure), plan)]


def _rows(cell: Scored, measure: Measure, estimate: float, drawn: Floats, by_sample: Floats | None, plan: Plan) -> list[Row]:
    used = cell.used(measure)
    n_groups, effective = cell.groups.count(used), cell.effective_groups(measure)
    intervals = {"percentile": percentile(drawn, plan.level), "logit": logit(estimate, drawn, plan.level, effective)}
    if measure.metric in BELOW_ZERO:
        no_logit = f"{measure.metric} can be negative, and the logit scale is of values within 0 and 1: see the percentile interval"
        intervals["logit"] = intervals["logit"]._replace(sd=None, low=None, high=None, reason=no_logit)
    if plan.bca:
        intervals["bca"] = bca(estimate, drawn, plan.level, lambda: _jackknife(cell, measure))
    undefined = ""
    if np.isnan(estimate):
        undefined = cell.why_undefined(measure)
    elif effective < MIN_GROUPS:
        undefined = f"{shortage(effective, MIN_GROUPS)}: no interval"
    if undefined:
        missing = int(np.isnan(drawn).sum())
        intervals = dict.fromkeys(intervals, Interval(None, None, None, missing, undefined))
    if by_sample is not None:  # without a guard, and in no verdict
        intervals["published"] = percentile(by_sample, PUBLISHED_LEVEL)
        if np.isnan(estimate):
            intervals["published"] = Interval(None, None, None, int(np.isnan(by_sample).sum()), undefined)
    counts = dict.fromkeys(intervals, len(drawn)) | {"published": PUBLISHED_RESAMPLES}
    return [
        Row(
            measure, method, None if np.isnan(estimate) else estimate, interval, int(used.sum()), n_groups, effective,
            effective < plan.min_groups, counts[method], drawn if method == "percentile" else None,
        )
        for method, interval in intervals.items()
    ]  # fmt: skip


def _jackknife(cell: Scored, measure: Measure) -> Floats:
    """The measure without each group that it uses, in turn."""
    size = len(cell.groups)
    groups = cell.groups.present(cell.used(measure))
    parts = []
    for start in range(0, len(groups), 500):
        left_out = groups[start : start + 500]
        weights = np.ones((size, len(left_out)))
        weights[left_out, np.arange(len(left_out))] = 0
        parts.append(cell.evaluate([measure], weights)[measure])
    return np.concatenate(parts)
