"""What all tasks read alike of their tables."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables
from medbench.errors import MedbenchError


def kept(frame: pl.DataFrame, path: Path, left_out: Collection[str]) -> pl.DataFrame:
    """A split without the samples `left_out`. Raises MedbenchError when nothing is left of it."""
    if frame.is_empty():
        raise MedbenchError(path, "the split is empty", "prepare the data set with samples in every split")
    rest = frame.filter(~pl.col("sample_id").is_in(sorted(left_out)))
    if rest.is_empty():
        found = f"the images of all {frame.height} samples stand in test too: without them nothing is left to train on"
        raise MedbenchError(path, found, "choose a mode that is not leak-free, and read the leak-free subset of its metrics")
    return rest


def with_images(samples: pl.DataFrame) -> pl.DataFrame:
    """Samples with a row, and an `image_id`, for each image of a sample: none for one without an image."""
    if "image_ids" not in samples.columns:
        return samples
    return samples.drop("image_id").explode("image_ids").rename({"image_ids": "image_id"}).drop_nulls("image_id")


def read_images_of(path: Path, columns: list[str]) -> pl.DataFrame:
    """Some columns of a table of samples, and `image_id`, a row an image."""
    try:
        several = [name for name in pl.read_parquet_schema(path) if name == "image_ids"]
    except (OSError, pl.exceptions.PolarsError):  # what is wrong says `read`
        several = []
    return with_images(tables.read(tables.Samples, path, [*columns, "image_id", *several]))


def is_leak_free(samples: pl.DataFrame, duplicates: pl.Series) -> NDArray[np.bool_]:
    """Which samples [n] have no duplicate in train or val."""
    return ~samples["sample_id"].is_in(duplicates.implode()).to_numpy()


def require_test(frame: pl.DataFrame, where: object, dataset: str, repeated: Mapping[str, str]) -> None:
    """Raise MedbenchError, said of `where`, for a table of a cell that is not of the data set's test samples, in their order.

    `repeated`: column of the cell's tables -> column of the samples that it repeats.
    """
    columns = {column: name for column, name in repeated.items() if column in frame.columns}
    test = tables.read(tables.Samples, paths.samples(dataset, "test"), list(dict.fromkeys(columns.values())))
    remedy = "it was altered, or is of another test set: delete it and run again"
    if frame.height != test.height:
        raise MedbenchError(where, f"holds {frame.height} samples, the test split of {dataset} {test.height}", remedy)
    for column, name in columns.items():
        differs = frame[column].ne_missing(test[name].cast(frame.schema[column], strict=False))
        if differs.any():
            row = differs.arg_max() or 0
            found = f"row {row} ({test['sample_id'][row]}) has {column} {frame[column][row]!r}, the test split {test[name][row]!r}"
            raise MedbenchError(where, f"{found} ({differs.sum()} such)", remedy)
