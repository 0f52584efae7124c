"""The report's tables as Parquet and CSV, and `facts.json`: what depends on machine and hour, kept out of everything else."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from medbench import paths, tasks
from medbench.report import cost, served
from medbench.report.answer import deciding
from medbench.report.cautions import Caution
from medbench.report.results import TASKS, Material, primary
from medbench.tables.spreadsheet import defused


def frames(material: Material, cautions: list[Caution]) -> dict[str, pl.DataFrame]:
    """Name -> table. Column meanings: `metrics` and `gaps` as in INTERFACE.md; `present`: whether the cell exists."""
    return {
        "metrics": material.metrics,
        "verdicts": deciding(material),
        "gaps": material.gaps,
        "confirmatory": material.confirmatory,
        "pooled": material.pooled,
        "baselines": pl.concat([primary(material, task) for task in TASKS]).filter(pl.col("role") == "baseline"),
        "cells": cells(material),
        "absent": absent(material),
        "cautions": pl.DataFrame(
            [(caution.kind, caution.title, place) for caution in cautions for place in caution.places],
            schema={"kind": pl.String, "caution": pl.String, "place": pl.String},
            orient="row",
        ),
        "overlap": material.overlap,
        "prompt-sensitivity": material.wording,
        "served": served.table(material),
        "controls": material.controls,
        **(material.lettered if any(tasks.is_lettered(facts.task) for facts in material.params.datasets.values()) else {}),
    }


def cells(material: Material) -> pl.DataFrame:
    """One row a cell of the run: who and what, weights, the command that makes it, and its certificate's facts as `certificate.*`."""
    rows, present = [], set(material.present)
    for cell in material.params.cells:
        model = material.params.models[cell.model]
        rows.append(
            {
                **material.params.facts(cell),
                "present": cell in present,
                "weights": model.weights,
                "revision": model.revision,
                "licence": model.licence,
                "command": command(cell),
                **{f"certificate.{name}": value for name, value in flat(material.certificates.get(cell, {})).items()},
            }
        )
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: _column([row.get(name) for row in rows]) for name in names})


def absent(material: Material) -> pl.DataFrame:
    """One row an absent cell: the stage that stopped it, its log, the last error, the command that makes the cell."""
    schema = dict.fromkeys(("dataset", "model", "mode", "stage", "log", "error", "command"), pl.String)
    return pl.DataFrame(
        [(*gone.cell, gone.stage, gone.log, gone.error, command(gone.cell)) for gone in material.absent], schema=schema, orient="row"
    )


def command(cell: tuple[str, str, str]) -> str:
    """What makes this one cell."""
    return f"snakemake --cores all {paths.predictions(*cell)}"


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names, in sorted order; of lists only the length, as `{name}.count`."""
    found: dict[str, Any] = {}
    for name, entry in sorted(value.items()):
        if isinstance(entry, dict):
            found |= flat(entry, f"{prefix}{name}.")
        elif isinstance(entry, list):
            found[f"{prefix}{name}.count"] = len(entry)
        else:
            found[prefix + name] = entry
    return found


def _column(values: list[Any]) -> pl.Series:
    """A column of one type: as given where all agree, numbers as floats, anything mixed as text."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pl.Series(values, dtype=pl.String)
    if kinds == {int, float}:
        return pl.Series(values, dtype=pl.Float64, strict=False)
    if len(kinds) > 1:
        return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)
    return pl.Series(values)


def write_tables(tables: dict[str, pl.DataFrame], folder: Path) -> None:
    """`{name}.parquet` and `{name}.csv`; in CSV lists are joined with spaces, and texts are defused (`defused`)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        frame.write_parquet(folder / f"{name}.parquet", compression="zstd")
        lists = [column for column, kind in frame.schema.items() if isinstance(kind, pl.List)]
        defused(frame.with_columns(pl.col(lists).cast(pl.List(pl.String)).list.join(" "))).write_csv(folder / f"{name}.csv")


def write_facts(material: Material, path: Path) -> None:
    """The run records of the predictions, and `cost.csv` beside them: seconds, devices, memory. Not reproducible by nature."""
    facts = {
        "run": material.run,
        "seed": material.params.seed,
        "cells": {str(cell): record for cell, record in sorted(material.records.items())},
    }
    path.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    defused(cost.table(material)).write_csv(path.with_name("cost.csv"))
