"""What all tasks read alike of their tables."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

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


def is_leak_free(samples: pl.DataFrame, duplicates: pl.Series) -> NDArray[np.bool_]:
    """Which samples [n] have no duplicate in train or val."""
    return ~samples["sample_id"].is_in(duplicates.implode()).to_numpy()
