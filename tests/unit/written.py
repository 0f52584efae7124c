"""What `prepare`, `adapt` and `predict` leave of a cell, by hand."""

import json

import polars as pl

from medbench import paths, tables, tasks
from medbench.jobs import integrity


def predictions(task: str, frame: pl.DataFrame, *cell: str) -> None:
    """Write them with the test split that they are of; each sample has an image of its own."""
    declared = tasks.get(task)
    tables.write(declared.predictions, frame, paths.predictions(*cell))
    test(task, frame, cell[0])


def test(task: str, frame: pl.DataFrame, dataset: str) -> None:
    """Write the test split that a table of predictions repeats."""
    declared = tasks.get(task)
    samples = frame.select(*(pl.col(column).alias(name) for column, name in declared.repeated.items()), image_id="sample_id")
    kinds = tables.columns(declared.samples)
    absent = [pl.lit(None, dtype=kind).alias(name) for name, kind in kinds.items() if name not in samples.columns]
    tables.write(declared.samples, samples.with_columns(*absent), paths.samples(dataset, "test"))


def certificate(*cell: str) -> None:
    """Write one of the weights that are there."""
    path, weights = paths.adapter_files(*cell)
    path.write_text(json.dumps({"cell": "/".join(cell), "failures": [], "files": integrity.of_folder(weights)}))
