"""Reading what adaptation and prediction need from the tables of a data set: samples, cached vectors, images."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables
from medbench.adapt.base import Samples
from medbench.errors import MedbenchError

if TYPE_CHECKING:
    from medbench.adapt.asked import Asked
    from medbench.datasets.images import ImageRow


def samples(dataset: str, split: str, n_classes: int, left_out: Collection[str] = ()) -> Samples:
    """One split of a diagnosis data set, without the samples `left_out`.

    Raises MedbenchError when nothing is left of it, and for a label beyond the classes.
    """
    path = paths.samples(dataset, split)
    frame = _without(tables.read(tables.SamplesDiagnosis, path), path, left_out)
    labels = frame["label"].to_numpy().astype(np.int64)
    if labels.max() >= n_classes:
        row = int(labels.argmax())
        raise MedbenchError(f"{path}, row {row}", f"label {labels[row]}, but there are {n_classes} classes", "run `prepare` again")
    return Samples(frame["sample_id"].to_list(), frame["group_id"].to_list(), labels, frame["image_id"].to_list())


def asked(dataset: str, split: str, left_out: Collection[str] = ()) -> "Asked":
    """One split of a question-answering data set, without the samples `left_out`. Raises MedbenchError when nothing is left of it."""
    from medbench.adapt.asked import Asked  # with Pillow

    path = paths.samples(dataset, split)
    frame = _without(tables.read(tables.SamplesVqa, path), path, left_out)
    return Asked(*(frame[column].to_list() for column in ("sample_id", "question", "answer", "image_id")))


def _without(frame: pl.DataFrame, path: Path, left_out: Collection[str]) -> pl.DataFrame:
    if frame.is_empty():
        raise MedbenchError(path, "the split is empty", "prepare the data set with samples in every split")
    kept = frame.filter(~pl.col("sample_id").is_in(sorted(left_out)))
    if kept.is_empty():
        found = f"the images of all {frame.height} samples stand in test too: without them nothing is left to train on"
        raise MedbenchError(path, found, "choose a mode that is not clean, and read the clean subset of its metrics")
    return kept


def twins_of_test(dataset: str) -> frozenset[str]:
    """Samples of train and val whose image stands in test too."""
    twins = tables.read(tables.Twins, paths.twins(dataset))
    return frozenset(twins.filter(pl.col("split") != "test", pl.col("other_split") == "test")["sample_id"])


def groups(dataset: str, split: str) -> list[str]:
    """The group of every sample, in the order of the table."""
    return tables.read(tables.SamplesVqa, paths.samples(dataset, split), columns=["group_id"])["group_id"].to_list()


def sample_ids(dataset: str, split: str) -> frozenset[str]:
    """The ids of a split and nothing else of it."""
    return frozenset(tables.read(tables.SamplesDiagnosis, paths.samples(dataset, split), columns=["sample_id"])["sample_id"])


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


def predictions(
    test: Samples, scores: NDArray[Any], draws: NDArray[Any] | None = None, by_prompts: NDArray[Any] | None = None
) -> pl.DataFrame:
    """Table `predictions-diagnosis` of class scores [n, k] in the order of `test`.

    `draws` [n, draws, k]: of a few-shot cell; `by_prompts` [n, sets, k]: off the shelf, prompt sets in the order of their names.
    """
    return pl.DataFrame(
        {
            "sample_id": test.sample_ids,
            "group_id": test.group_ids,
            "label": test.labels,
            "scores": scores.astype(np.float64).tolist(),
            "draws": None if draws is None else draws.astype(np.float64).tolist(),
            "by_prompts": None if by_prompts is None else by_prompts.astype(np.float64).tolist(),
        },
        schema=tables.columns(tables.PredictionsDiagnosis),
    )
