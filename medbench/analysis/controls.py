"""Controls: what a model gains, off the shelf, over itself when it sees a grey image, another's, or none, and over baselines.

Paired, question by question.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from medbench import tables
from medbench.analysis.gaps import Results, Study
from medbench.analysis.lettered import compared
from medbench.cells import Cell
from medbench.metrics.measure import Measure


def control_table(study: Study, controls: Sequence[str], results: Results) -> pl.DataFrame:
    """Table `controls`: every model's own cell off the shelf against each of its controls (`controls`: their modes) and of the data set's
    baselines, by the measures that decide."""
    models, rows = {candidate.model for candidate in study.candidates}, []
    for own in sorted(cell for cell in study.cells if cell.model in models and cell.mode == study.off_the_shelf):
        task = study.tasks[own.dataset]
        measures = dict.fromkeys([study.primary[task], *([study.fallback[task]] if task in study.fallback else [])])
        others = [("mode", cell) for cell in sorted(study.cells) if cell[:2] == own[:2] and cell.mode in controls]
        others += [("baseline", cell) for cell in sorted(study.cells) if cell[::2] == own[::2] and cell.model not in models]
        rows += [_row(own, kind, other, measure, study, results) for kind, other in others for measure in measures]
    columns = tables.columns(tables.Controls)
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)


def _row(own: Cell, kind: str, other: Cell, measure: Measure, study: Study, results: Results) -> dict[str, Any]:
    found = compared(own, other, measure, study, results)
    named = {"generalist_estimate": "estimate", "specialist_estimate": "control_estimate", "gap": "gain"}
    row = {"dataset": own.dataset, "model": own.model, "mode": own.mode, "kind": kind, **measure._asdict()}
    row["control"] = other.mode if kind == "mode" else other.model
    return row | {named.get(name, name): value for name, value in found.items()}
