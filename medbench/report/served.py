"""The same checkpoint here and behind a server: how many answers differ, and what that does to the deciding metric."""

from typing import Any

import numpy as np
import polars as pl

from medbench import paths, tables
from medbench.cells import Cell
from medbench.report.results import TASKS, Material, without_primary
from medbench.stats.intervals import percentile

COLUMNS = {
    "dataset": pl.String, "mode": pl.String, "model": pl.String, "here": pl.String, "n": pl.Int64, "n_different": pl.Int64,
    "share_different": pl.Float64, "metric": pl.String, "gap": pl.Float64, "low": pl.Float64, "high": pl.Float64, "reason": pl.String,
}  # fmt: skip


def table(material: Material) -> pl.DataFrame:
    """One row a cell of a model whose entry says `same_as`, and the cell of that model. `gap`: behind the server minus here, paired."""
    rows = []
    for cell in material.present:
        here = cell._replace(model=material.params.models[cell.model].same_as or "")
        if here in material.present:
            rows.append(_row(material, cell, here))
    return pl.DataFrame(rows, schema=COLUMNS)


def _row(material: Material, cell: Cell, here: Cell) -> dict[str, Any]:
    task = TASKS[material.params.datasets[cell.dataset].task]
    answers = [tables.read(task.predictions, paths.predictions(*one), ["sample_id", "answer"]) for one in (cell, here)]
    both = answers[0].join(answers[1], on="sample_id", suffix="_here")
    different = int((both["answer"] != both["answer_here"]).sum())
    row = {**dict.fromkeys(COLUMNS), "dataset": cell.dataset, "mode": cell.mode, "model": cell.model, "here": here.model}
    row |= {"n": both.height, "n_different": different, "share_different": different / both.height if both.height else None}
    measure = task.fallback if task.fallback and {cell, here} & without_primary(material, task.name) else task.primary
    return row | {"metric": measure.metric} | _gap(cell, here, dict(measure._asdict()), material.params.statistics["level"])


def _gap(cell: Cell, here: Cell, measure: dict[str, str], level: float) -> dict[str, Any]:
    columns = ["estimate", "replicates", "sample_digest"]
    chosen = [pl.col(name) == value for name, value in {**measure, "method": "percentile"}.items()]
    found = [tables.read(tables.Intervals, paths.intervals(*one), [*measure, "method", *columns]).filter(*chosen) for one in (cell, here)]
    if any(frame.height != 1 or frame["estimate"].null_count() for frame in found):
        return {"reason": "the metric is not defined in both"}
    if found[0]["sample_digest"].item() != found[1]["sample_digest"].item():
        return {"reason": "scored on other samples"}
    drawn = [frame["replicates"].item().to_numpy() for frame in found]
    interval = percentile(np.asarray(drawn[0], dtype=float) - np.asarray(drawn[1], dtype=float), level)
    return {
        "gap": found[0]["estimate"].item() - found[1]["estimate"].item(),
        "low": interval.low,
        "high": interval.high,
        "reason": interval.reason,
    }
