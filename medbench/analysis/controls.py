"""Controls: what a model gains, off the shelf, over itself when it sees a grey image, another's, or none. Paired, question by question."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from medbench import tables
from medbench.analysis.gaps import Results, Study, Unpaired, uncertainty
from medbench.cells import Cell
from medbench.metrics.measure import Measure


def control_table(study: Study, controls: Sequence[str], results: Results) -> pl.DataFrame:
    """Table `controls`: every model's own cell against each of its controls (`controls`: their modes), by the measures that decide."""
    rows = []
    for control in sorted(cell for cell in study.cells if cell.mode in controls):
        own = control._replace(mode=study.off_the_shelf or "")
        task = study.tasks[control.dataset]
        measures = dict.fromkeys([study.primary[task], *([study.fallback[task]] if task in study.fallback else [])])
        if own in study.cells:
            rows += [_row(own, control, measure, study, results) for measure in measures]
    columns = tables.columns(tables.Controls)
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)


def _row(own: Cell, control: Cell, measure: Measure, study: Study, results: Results) -> dict[str, Any]:
    first, second = (results.estimate(cell, measure) for cell in (own, control))
    row = {
        "dataset": own.dataset, "model": own.model, "mode": own.mode, "control": control.mode, **measure._asdict(),
        "estimate": first.value, "control_estimate": second.value,
    }  # fmt: skip
    if first.value is None or second.value is None:
        missing = [f"{cell}: {one.reason}" for cell, one in ((own, first), (control, second)) if one.value is None]
        return row | {"reason": "; ".join(missing)}
    pair = results.pair(own, control, measure)
    if isinstance(pair, Unpaired):
        return row | {"reason": pair.reason}
    gain, why_not = uncertainty(pair, study)
    row |= {"gain": pair.first - pair.second, "n_pair": pair.n, "n_groups": pair.n_groups, "reason": why_not or None}
    return row if gain is None else row | {"sd": gain.sd, "low": gain.low, "high": gain.high, "p": gain.p}
