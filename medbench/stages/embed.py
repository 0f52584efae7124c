"""Embed the images of a data set once: features for probes, zero-shot embeddings of what is evaluated."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from medbench import paths
from medbench.config import Config, needs, sources
from medbench.datasets.images import count_images, decode, read_images
from medbench.errors import MedbenchError
from medbench.jobs import files, partial, process, seeding
from medbench.jobs.progress import track
from medbench.jobs.stage import Needs, Stage
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.models.prefetch import prefetch_pixels

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

    source: dict[str, Any]  # fields of medbench.models.checkpoint.Source
    batch_size: int
    deterministic: bool = False  # kernels of a GPU


def params(config: Config, dataset: str, model: str) -> Params:
    """Parameters of one model on one data set."""
    entry = config.models[model]
    chosen = Params(sources.weights(config, model), entry.batch_size)
    return chosen._replace(deterministic=config.run.deterministic and chosen.source["checkpoint"] is not None)


def run(params: Params, dataset: str, model: str, work: partial.Work) -> dict[str, Any]:
    """Write `embeddings/{dataset}/{model}.parquet`, streamed and resumed batch by batch. Returns facts for the run record.

    Raises MedbenchError naming the image whose vector is not finite.
    """
    if params.deterministic:
        seeding.deterministic_kernels()
    embedder: loading.Embedder = loading.load(Source(**params.source))
    begun, weights = time.monotonic(), getattr(embedder, "weights", {})
    with work.journal(weights) as journal:
        done = min(len(journal) * params.batch_size, count_images(paths.images(dataset)))
        _embed(embedder, params.batch_size, journal, work, (dataset, model))
        if not len(journal):
            raise MedbenchError(paths.images(dataset), "holds no image", "run `prepare` again")
        computed = count_images(paths.images(dataset)) - done
        seconds = time.monotonic() - begun
        count = _write(journal, paths.embeddings(dataset, model))
    facts = {"images": count, "images_per_second": round(computed / seconds, 1), "image_processor": embedder.image_processor}
    return {**facts, **loading.costs(embedder), **work.facts(), "weights": weights}


def _embed(embedder: loading.Embedder, batch_size: int, journal: partial.Journal, work: partial.Work, names: tuple[str, str]) -> None:
    """Append what the journal lacks; nothing of a batch that it holds is decoded."""
    path, cell = paths.images(names[0]), "/".join(names)
    rows = islice(read_images(path, batch_size=batch_size), len(journal), None)
    batches = prefetch_pixels(rows, lambda data: embedder.pixels(decode(data)), process.threads())
    total = count_images(path)
    done = min(len(journal) * batch_size, total)
    vectors = embedder.vectors(batches, work.microbatching)
    for batch, made in track(vectors, f"embed {cell}, images", total, done, lambda one: len(one[0].image_ids)):
        _check(batch, made, cell)
        journal.append(_table(batch, made))


def _check(batch: loading.Batch, vectors: loading.Vectors, cell: str) -> None:
    for values in (vectors.features, vectors.embeddings):
        if values is not None and not (good := np.isfinite(values.reshape(len(values), -1)).all(axis=1)).all():
            image = batch.image_ids[int(good.argmin())]
            raise MedbenchError(
                f"embeddings {cell}, image {image}",
                "the model's output is not finite",
                "check the image and the checkpoint, or use float32",
            )


def _table(batch: loading.Batch, vectors: loading.Vectors) -> pa.Table:
    """Made by polars: handed lists or arrays, pyarrow imports pandas."""
    embeddings = pl.Series([None] * len(batch.image_ids), dtype=pl.List(pl.List(pl.Float32)))
    if vectors.embeddings is not None:
        embeddings = pl.Series(vectors.embeddings).cast(embeddings.dtype)
    columns = {"image_id": batch.image_ids, "features": pl.Series(vectors.features).cast(pl.List(pl.Float32)), "embeddings": embeddings}
    evaluated = pl.Series(batch.evaluated, dtype=pl.Boolean)
    frame = pl.DataFrame(columns).with_columns(pl.when(evaluated).then(pl.col("embeddings")))
    return frame.to_arrow().cast(SCHEMA)


def _write(tables: Iterable[pa.Table], path: Path) -> int:
    """Write the tables as one, whole or not at all, in row groups of fixed size; the number of rows."""
    count = 0
    with files.atomic(path) as aside, pq.ParquetWriter(aside, SCHEMA, compression="zstd", write_statistics=False) as file:
        for group in _row_groups(tables):
            file.write_table(group)
            count += group.num_rows
    return count


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting = pa.Table.from_batches([], SCHEMA)
    for table in tables:
        waiting = pa.concat_tables([waiting, table])
        while waiting.num_rows >= ROW_GROUP:
            yield waiting.slice(0, ROW_GROUP)
            waiting = waiting.slice(ROW_GROUP)
    if waiting.num_rows:
        yield waiting


def _needs(config: Config, dataset: str, model: str) -> Needs:
    loads = sources.weights(config, model)["checkpoint"] is not None  # raw pixels load nothing
    return needs.model_job(config, "embed", {"dataset": dataset, "model": model}, loads)


STAGE = Stage(
    name="embed",
    keys=("dataset", "model"),
    params=params,
    inputs=lambda params, dataset, model: [paths.images(dataset), *sources.made_here(params.source, model)],
    outputs=lambda dataset, model: [paths.embeddings(dataset, model)],
    run=run,
    uses=lambda params: (params.source["module"],),
    needs=_needs,
    resumes=True,
)
