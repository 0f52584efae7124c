"""Embed the images of a data set once: features for probes, zero-shot embeddings of what is evaluated."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medbench import paths, runtime
from medbench.config import Config, checkpoint
from medbench.datasets.images import decode, read_images
from medbench.errors import MedbenchError
from medbench.models import base
from medbench.models.feed import feed

KEYS = ("dataset", "model")
ROW_GROUP = 1024  # rows: what memory holds of the table
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.large_string()),
        pa.field("features", pa.large_list(pa.float32())),
        pa.field("embeddings", pa.large_list(pa.large_list(pa.float32()))),
    ]
)


class Params(NamedTuple):
    """What changes the vectors besides the images. The batch size does, in the last bits."""

    module: str
    checkpoint: str | None
    revision: str | None
    batch_size: int


def params(config: Config, dataset: str, model: str) -> Params:
    """Parameters of one model on one data set."""
    entry = config.models[model]
    return Params(base.module_name(entry.kind, entry.architecture), checkpoint(config, model), entry.revision, entry.batch_size)


def modules(params: Params) -> tuple[str, ...]:
    """The architecture's file."""
    return (params.module,)


def run(params: Params, dataset: str, model: str) -> dict[str, Any]:
    """Write `embeddings/{dataset}/{model}.parquet`, streamed. Returns facts for the run record.

    Raises MedbenchError naming the image whose vector is not finite.
    """
    embedder: base.Embedder = base.load(params.module, params.checkpoint, params.revision)
    rows = read_images(paths.images(dataset), batch_size=params.batch_size)
    batches = feed(rows, lambda data: embedder.pixels(decode(data)), runtime.threads())
    path, count = paths.embeddings(dataset, model), 0
    with _writer(path) as write:
        for batch, vectors in embedder.vectors(batches):
            _check(batch, vectors, f"{dataset}/{model}")
            write(_table(batch, vectors))
            count += len(batch.image_ids)
        if not count:
            raise MedbenchError(paths.images(dataset), "holds no image", "run `prepare` again")
    return {"images": count, "image_processor": embedder.image_processor}


def _check(batch: base.Batch, vectors: base.Vectors, cell: str) -> None:
    for values in (vectors.features, vectors.embeddings):
        if values is not None and not (good := np.isfinite(values.reshape(len(values), -1)).all(axis=1)).all():
            image = batch.image_ids[int(good.argmin())]
            raise MedbenchError(
                f"embeddings {cell}, image {image}",
                "the model's output is not finite",
                "check the image and the checkpoint, or use float32",
            )


def _table(batch: base.Batch, vectors: base.Vectors) -> pa.Table:
    embeddings: list[Any] = [None] * len(batch.image_ids)
    if vectors.embeddings is not None:
        embeddings = [vector.tolist() if wanted else None for vector, wanted in zip(vectors.embeddings, batch.evaluated, strict=True)]
    return pa.table([batch.image_ids, list(vectors.features), embeddings], schema=SCHEMA)


@contextmanager
def _writer(path: Path) -> Iterator[Any]:
    """A function that appends tables to `path` in row groups of fixed size; the file appears whole at the end, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    waiting: list[pa.Table] = []

    def flush(least: int) -> None:
        while waiting and (joined := pa.concat_tables(waiting)).num_rows >= least:
            file.write_table(joined.slice(0, ROW_GROUP))
            waiting[:] = [joined.slice(ROW_GROUP)] if joined.num_rows > ROW_GROUP else []

    def write(table: pa.Table) -> None:
        waiting.append(table)
        if sum(part.num_rows for part in waiting) >= ROW_GROUP:
            flush(ROW_GROUP)

    try:
        with pq.ParquetWriter(partial, SCHEMA, compression="zstd", write_statistics=False) as file:
            yield write
            flush(1)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
