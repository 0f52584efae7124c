"""What each job of the run's cells took: read from run records, so never part of what is reproduced byte by byte."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from medbench import paths
from medbench.report.results import Material

COLUMNS = {
    "stage": pl.String, "dataset": pl.String, "model": pl.String, "mode": pl.String, "device": pl.String,
    "seconds": pl.Float64, "images": pl.Int64, "images_per_second": pl.Float64, "peak_rss_mb": pl.Int64, "peak_gpu_mb": pl.Int64,
    "parameters": pl.Int64, "parameters_trained": pl.Int64, "flops_per_image": pl.Int64,
    "input_tokens": pl.Int64, "output_tokens": pl.Int64, "dollars": pl.Float64,
}  # fmt: skip


def table(material: Material) -> pl.DataFrame:
    """One row a job: embed once for a data set and model, adapt and predict for a cell. Null where a job does not know."""
    jobs: dict[tuple[str, tuple[str, ...]], Path] = {}
    for cell in material.present:
        jobs["embed", (cell.dataset, cell.model)] = paths.embeddings(cell.dataset, cell.model)
        jobs["adapt", cell] = paths.adapter_files(*cell)[0]
        jobs["predict", cell] = paths.predictions(*cell)
    rows = []
    for (stage, names), output in jobs.items():
        if (record := _read(paths.run_record(output))) is not None:
            facts = {name: record.get(name) for name in COLUMNS if name not in ("stage", "dataset", "model", "mode")}
            rows.append({"stage": stage, "dataset": names[0], "model": names[1], "mode": names[2] if len(names) == 3 else None, **facts})
    return pl.DataFrame(rows, schema=COLUMNS)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return None
