"""Reading what adaptation and prediction need from the tables of a data set: samples, cached vectors, images."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables
from medbench.errors import MedbenchError

if TYPE_CHECKING:
    from medbench.datasets.images import ImageRow


def duplicates_of_test(dataset: str) -> frozenset[str]:
    """Samples of train and val whose image stands in test too."""
    duplicates = tables.read(tables.Duplicates, paths.duplicates(dataset))
    return frozenset(duplicates.filter(pl.col("split") != "test", pl.col("other_split") == "test")["sample_id"])


def groups(dataset: str, split: str) -> list[str]:
    """The group of every sample, in the order of the table."""
    return tables.read(tables.Samples, paths.samples(dataset, split), columns=["group_id"])["group_id"].to_list()


def sample_ids(dataset: str, split: str) -> frozenset[str]:
    """The ids of a split and nothing else of it."""
    return frozenset(tables.read(tables.Samples, paths.samples(dataset, split), columns=["sample_id"])["sample_id"])


def features(dataset: str, model: str, image_ids: Sequence[str]) -> NDArray[np.float32]:
    """Cached features [n, d] of images, in the order of `image_ids`."""
    column = _vectors(dataset, model, image_ids, "features")
    return column.explode().to_numpy().reshape(len(column), -1)


def embeddings(dataset: str, model: str, image_ids: Sequence[str]) -> NDArray[np.float32]:
    """Cached zero-shot embeddings [n, q, e] of images of val or test, in the order of `image_ids`."""
    column = _vectors(dataset, model, image_ids, "embeddings")
    queries = int(column.list.len()[0])
    return column.explode().explode().to_numpy().reshape(len(column), queries, -1)


def _vectors(dataset: str, model: str, image_ids: Sequence[str], column: str) -> pl.Series:
    path = paths.embeddings(dataset, model)
    table = tables.read(tables.Embeddings, path, columns=["image_id", column])
    joined = pl.DataFrame({"image_id": list(image_ids)}).join(table, on="image_id", how="left", maintain_order="left")[column]
    if joined.null_count():
        row = joined.is_null().arg_max() or 0
        raise MedbenchError(
            path, f"holds no {column} of image {image_ids[row]} ({joined.null_count()} such)", "delete it and run `embed` again"
        )
    return joined


def images(dataset: str, image_ids: Sequence[str], batch_size: int) -> Iterator[list["ImageRow"]]:
    """Batches of the images named, each once, in the order of the images table. Raises MedbenchError when one is absent."""
    from medbench.datasets.images import read_images  # with pyarrow

    path, wanted, found = paths.images(dataset), frozenset(image_ids), 0
    for rows in read_images(path, wanted, batch_size):
        found += len(rows)
        yield rows
    if found < len(wanted):
        raise MedbenchError(path, f"lacks {len(wanted) - found} of {len(wanted)} images", "delete it and run `prepare` again")
