"""Predict with a generative model, off the shelf or with its adapter: questions in batches of similar length, images streamed."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import torch

from medbench import material, paths
from medbench.adapt import tuned
from medbench.adapt.asked import Asked, Window, by_length, decoded, windows
from medbench.adapt.base import Source
from medbench.datasets.images import decode
from medbench.models import base
from medbench.models.ahead import ahead
from medbench.models.asking import Asking, asking
from medbench.models.fitting import Prepared
from medbench.models.generative_base import Answer, Generative, Query
from medbench.partial import Work
from medbench.predict.answers import table
from medbench.progress import track
from medbench.stages.predict import Params

WINDOW = 256
"""Images held at once. Questions are sorted by length among those about these images, so memory does not grow with the data."""


class Batch(NamedTuple):
    """Places in the test split with the images that belong to them."""

    places: list[int]
    images: dict[str, bytes]


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-vqa` of the test split. Batches depend on the data and the batch size alone; finished ones are kept."""
    assert params.source is not None and params.asking is not None, "this method loads a model and asks it"
    source, put, test = Source(**params.source), asking(params.asking), material.asked(dataset, "test")
    loaded: Generative = base.load(source.module, source.checkpoint, source.revision)
    if params.adapted:
        tuned.read(paths.adapter(dataset, model, mode) / "weights.safetensors", loaded)

    def inputs(batch: Batch, part: Sequence[int]) -> dict[str, torch.Tensor]:
        return loaded.inputs([query(test, place, batch.images[test.image_ids[place]], put) for place in part], put.max_new_tokens)

    def prepare(batch: Batch) -> Prepared[dict[str, torch.Tensor]]:
        return Prepared(work.fitting, batch.places, lambda part: inputs(batch, part))

    def answers(prepared: Prepared[dict[str, torch.Tensor]]) -> list[Answer]:
        parts = work.fitting.run(prepared.places, lambda part: loaded.generate(prepared(part), put.max_new_tokens))
        return [answer for part in parts for answer in part]

    seen, total = windows(test, material.images(dataset, test.image_ids, WINDOW)), len(test.questions)
    with work.journal() as journal:
        left = islice(batches(test, seen, put, loaded, source.batch_size), len(journal), None)
        done = sum(kept.num_rows for kept in journal)
        what = f"predict {dataset}/{model}/{mode}, questions"
        for batch, prepared in track(ahead(prepare, left), what, total, done, lambda one: len(one[0].places)):
            made = zip(*answers(prepared), strict=True)
            journal.append(pa.table({"place": batch.places, **dict(zip(Answer._fields, map(list, made), strict=True))}))
        found = {row.pop("place"): Answer(**row) for kept in journal for row in kept.to_pylist()}
    return table(dataset, [found[place] for place in range(total)])


def batches(test: Asked, seen: Iterator[Window], put: Asking, model: Generative, size: int) -> Iterator[Batch]:
    """Questions of similar length together."""
    for window in seen:
        lengths = {place: len(model.tokens(put.text(test.questions[place]))) for place in window.places}
        for places in by_length(window.places, lengths.__getitem__, size):
            yield Batch(places, window.images)


def query(test: Asked, place: int, data: bytes, put: Asking) -> Query:
    """One question of a split with its image, encoded in `data`."""
    image = decoded(test.image_ids[place], data, decode)
    return Query(f"sample {test.sample_ids[place]}", image, put.text(test.questions[place]))
