"""Lettered questions off the shelf: generalists against specialists by data set, size and skill, reasoning against understanding, how far
a model's accuracies lie apart over data sets, and which cells exceed the reliability threshold.

Everything here is exploratory: p values are not adjusted, and no verdict follows.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import tables, tasks
from medbench.analysis.gaps import Pair, Results, Sides, Study, Unpaired, deciding, uncertainty
from medbench.cells import Cell
from medbench.metrics.measure import REASONING_GAPS, Measure
from medbench.stats.intervals import logit, percentile

Floats = NDArray[np.float64]
EVERY = "all"
SIZES = {"under 5 B": 5e9, "5 to 15 B": 15e9, "15 to 50 B": 50e9, "from 50 B": float("inf")}
"""Classes of sizes, and the parameters below which a model belongs to one."""
SCORINGS = ("letter", "text")


class Drawn(NamedTuple):
    """A measure of a cell: its estimate, its replicates [B] (NaN where undefined), and the effective groups behind it."""

    estimate: float
    replicates: Floats
    effective_groups: float


class Replicated(Results, Protocol):
    """Results that also give the replicates of one cell, and name measures that are not compared."""

    def every(self, cell: Cell) -> list[Measure]:
        """All measures of a cell; none where it is missing."""
        ...

    def drawn(self, cell: Cell, measure: Measure) -> Drawn | None:
        """None where the cell or its measure is missing."""
        ...


def pairs_table(study: Study, sizes: Mapping[str, int], results: Replicated) -> pl.DataFrame:
    """Table `pairs`. `sizes`: model -> parameters, where they are known."""
    rows = []
    for dataset, generalists, specialists in _sides(study):
        for own, other in product(generalists, specialists):
            for measure in _measures([own], [other], study, results):
                row = {"dataset": dataset, "generalist": own.model, "specialist": other.model, **measure._asdict()}
                row |= {"generalist_size": sizes.get(own.model), "specialist_size": sizes.get(other.model)}
                rows.append(row | compared(own, other, measure, study, results))
    return _frame(rows, tables.Pairs)


def compared(own: Cell, other: Cell, measure: Measure, study: Study, results: Results) -> dict[str, Any]:
    """Two cells of a data set, paired: estimates (the first's as `generalist_estimate`), gap, interval, p, reason."""
    first, second = (results.estimate(cell, measure) for cell in (own, other))
    row: dict[str, Any] = {"generalist_estimate": first.value, "specialist_estimate": second.value}
    if first.value is None or second.value is None:
        missing = [f"{cell}: {one.reason}" for cell, one in ((own, first), (other, second)) if one.value is None]
        return row | {"reason": "; ".join(missing)}
    pair = results.pair(own, other, measure)
    return row | ({"reason": pair.reason} if isinstance(pair, Unpaired) else _gap(pair, study))


def _gap(pair: Pair, study: Study) -> dict[str, Any]:
    found, why_not = uncertainty(pair, study)
    row = {"gap": pair.first - pair.second, "n_pair": pair.n, "n_groups": pair.n_groups, "reason": why_not or None}
    return row if found is None else row | {"sd": found.sd, "low": found.low, "high": found.high, "p": found.p}


def roles_table(study: Study, sizes: Mapping[str, int], results: Replicated) -> pl.DataFrame:
    """Table `roles`: of every data set and class of sizes with models of both roles, and over all data sets."""
    rows, over = [], dict[tuple[str, Measure], list[tuple[Pair, int, int]]]()
    for dataset, generalists, specialists in _sides(study):
        for size in (EVERY, *SIZES):
            own, other = ([cell for cell in side if size in (EVERY, _class(sizes.get(cell.model)))] for side in (generalists, specialists))
            for measure in _measures(own, other, study, results) if own and other else []:
                key = {"dataset": dataset, "size": size, **measure._asdict()}
                counts = {"n_datasets": 1, "n_generalists": len(own), "n_specialists": len(other)}
                missing = [f"{cell}: {one.reason}" for cell in (*own, *other) if (one := results.estimate(cell, measure)).value is None]
                mean = None if missing else _mean([results.pair(*cells, measure) for cells in product(own, other)])
                if mean is None:
                    rows.append({**key, **counts, "reason": missing[0] if missing else "cells that cannot be paired"})
                    continue
                over.setdefault((size, measure), []).append((mean, len(own), len(other)))
                rows.append({**key, **counts, **_estimates(mean), **_gap(mean, study)})
    for (size, measure), found in over.items():
        if len(found) > 1 and (mean := _mean([pair for pair, _, _ in found])):
            counts = {"n_datasets": len(found), "n_generalists": max(n for _, n, _ in found), "n_specialists": max(n for _, _, n in found)}
            rows.append({"dataset": EVERY, "size": size, **measure._asdict(), **counts, **_estimates(mean), **_gap(mean, study)})
    return _frame(rows, tables.Roles)


def _estimates(pair: Pair) -> dict[str, float]:
    return {"generalist_estimate": pair.first, "specialist_estimate": pair.second}


def _mean(pairs: Sequence[Pair | Unpaired]) -> Pair | None:
    """Mean of pairs, resample by resample. The resamples of two data sets are independent; those of one data set are the same."""
    whole = [pair for pair in pairs if isinstance(pair, Pair) and pair.differences is not None]
    if len(whole) < len(pairs) or not whole:
        return None
    size = min(len(pair.differences) for pair in whole if pair.differences is not None)
    differences = np.mean([pair.differences[:size] for pair in whole if pair.differences is not None], axis=0)
    effective = [pair.effective_groups for pair in whole if pair.effective_groups is not None]
    first, second = (float(np.mean(values)) for values in zip(*((pair.first, pair.second) for pair in whole), strict=True))
    return Pair(first, second, differences, None, None, min(effective) if effective else None)


def variation_table(study: Study, results: Replicated) -> pl.DataFrame:
    """Table `variation`: of every model off the shelf, by the first scoring that it has on all of its data sets.

    A replicate's variance over data sets holds the sampling variance once more than the observed one does, so its mean is taken away.
    """
    rows = []
    for model in dict.fromkeys(candidate.model for candidate in study.candidates):
        cells = [cell for dataset in _datasets(study) if (cell := Cell(dataset, model, study.off_the_shelf or "")) in study.cells]
        found = {scoring: [results.drawn(cell, Measure("accuracy", scoring, "all")) for cell in cells] for scoring in SCORINGS}
        scoring = next((name for name in SCORINGS if cells and None not in found[name]), None)
        if not cells:
            continue
        row: dict[str, Any] = {"model": model, "mode": study.off_the_shelf, "scoring": scoring or SCORINGS[-1], "k": len(cells)}
        have = [one for one in found[scoring] if one] if scoring else []
        if len(have) < 2:
            rows.append(row | {"reason": "one data set" if scoring else "no scoring that it has on all data sets"})
            continue
        values, size = np.array([one.estimate for one in have]), min(len(one.replicates) for one in have)
        drawn = np.array([one.replicates[:size] for one in have])
        noise = float(np.mean(np.nanvar(drawn, axis=1)))
        mean = percentile(drawn.mean(axis=0), study.level)
        sd = percentile(np.sqrt(np.maximum(drawn.var(axis=0, ddof=1) - noise, 0.0)), study.level)
        ends = {"lowest": cells[int(values.argmin())].dataset, "highest": cells[int(values.argmax())].dataset}
        row |= {"mean": float(values.mean()), "mean_low": mean.low, "mean_high": mean.high, "sd": float(values.std(ddof=1)), **ends}
        rows.append(row | {"low": sd.low, "high": sd.high, "sd_between": max(float(values.var(ddof=1)) - noise, 0.0) ** 0.5})
    return _frame(rows, tables.Variation)


def reliability_table(study: Study, controls: Sequence[str], threshold: float, results: Replicated) -> pl.DataFrame:
    """Table `reliability`: every model's cells that see their questions as they are, in both scorings."""
    models, rows = {candidate.model for candidate in study.candidates}, []
    for cell in sorted(study.cells):
        if cell.model not in models or cell.mode in controls or not tasks.is_lettered(study.tasks[cell.dataset]):
            continue
        for scoring in SCORINGS:
            measure = Measure("accuracy", scoring, "all")
            row = {**cell._asdict(), "scoring": scoring, "threshold": threshold, "is_reliable": False}
            if (one := results.drawn(cell, measure)) is None:
                rows.append(row | {"reason": results.estimate(cell, measure).reason})
                continue
            bounds = logit(one.estimate, one.replicates, study.level, one.effective_groups)
            is_reliable = bounds.low is not None and bounds.low > threshold
            row |= {"estimate": one.estimate, "low": bounds.low, "high": bounds.high, "is_reliable": is_reliable}
            rows.append(row | {"reason": bounds.reason})
    return _frame(rows, tables.Reliability)


def _datasets(study: Study) -> list[str]:
    return [dataset for dataset, task in study.tasks.items() if tasks.is_lettered(task)]


def _sides(study: Study) -> Iterable[tuple[str, list[Cell], list[Cell]]]:
    """Of every data set of lettered questions the cells off the shelf of either role."""
    for dataset in _datasets(study) if study.off_the_shelf else []:
        cells = {one: Cell(dataset, one.model, study.off_the_shelf or "") for one in study.candidates}
        generalists, specialists = (
            [cell for one, cell in cells.items() if one.role == role and cell in study.cells] for role in ("generalist", "specialist")
        )
        yield dataset, generalists, specialists


def _class(parameters: int | None) -> str | None:
    return None if parameters is None else next(name for name, end in SIZES.items() if parameters < end)


def _measures(own: list[Cell], other: list[Cell], study: Study, results: Replicated) -> list[Measure]:
    """Accuracy by the scoring that decides, on all questions and of each skill; its mean over categories; reasoning minus understanding."""
    chosen = deciding(Sides("rq1", own[0].mode, EVERY, own[0].dataset, own, other), study, results)
    named = [chosen, chosen._replace(metric="macro_accuracy"), *(chosen._replace(metric=name) for name in REASONING_GAPS)]
    known = {measure for cell in (*own, *other) for measure in results.every(cell)}
    skills = sorted(measure for measure in known if measure.subset.startswith("skill-") and measure[:2] == chosen[:2])
    return [chosen, *(measure for measure in (*named[1:], *skills) if measure in known)]


def _frame(rows: list[dict[str, Any]], table: Any) -> pl.DataFrame:
    columns = tables.columns(table)
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)
