"""Predict with a generative model, off the shelf or with its adapter: questions in batches of similar length, images streamed."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from PIL import Image

from medbench import material, paths, runtime
from medbench.adapt.asked import Asked, Window, by_length, decoded, windows
from medbench.datasets.images import decode
from medbench.errors import MedbenchError
from medbench.models import generative_base
from medbench.models.ahead import ahead
from medbench.models.asking import Asking, asking
from medbench.models.checkpoint import Source
from medbench.models.fitting import Prepared
from medbench.models.generative_base import Answer, Generative, Query
from medbench.partial import Work
from medbench.predict.answers import table
from medbench.progress import track
from medbench.stages.predict import Params

N_ALONE = 32
"""Questions that are asked once more, alone, where the model does not compute in float32."""
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
    if params.image == "shuffled":
        test = test._replace(image_ids=shuffled(dataset, test, params.seed or 0))
    look = blank if params.image == "blank" else decode
    loaded = generative_base.load(source)
    work.found["weights"] = loaded.weights
    if params.adapted:
        from medbench.adapt import tuned  # with peft, which takes as long to import as all the rest

        tuned.read(paths.adapter(dataset, model, mode) / "weights.safetensors", loaded, source)

    def inputs(batch: Batch, part: Sequence[int]) -> dict[str, torch.Tensor]:
        once = cache(look)  # questions of a batch often share an image
        return loaded.inputs([query(test, place, batch.images[test.image_ids[place]], put, once) for place in part], put.max_new_tokens)

    def prepare(batch: Batch) -> Prepared[dict[str, torch.Tensor]]:
        return Prepared(work.fitting, batch.places, lambda part: inputs(batch, part))

    def answers(prepared: Prepared[dict[str, torch.Tensor]]) -> list[Answer]:
        parts = work.fitting.run(prepared.places, lambda part: loaded.generate(prepared(part), put.max_new_tokens))
        return [answer for part in parts for answer in part]

    seen, total = windows(test, material.images(dataset, test.image_ids, WINDOW)), len(test.questions)
    with work.journal() as journal:
        done = {place for kept in journal for place in kept["place"].to_pylist()}
        left = rest(batches(test, seen, put, loaded, source.batch_size), done)
        made_ready, what = ahead(prepare, left, runtime.overlaps()), f"predict {dataset}/{model}/{mode}, questions"
        for batch, prepared in track(made_ready, what, total, len(done), lambda one: len(one[0].places)):
            made = zip(*answers(prepared), strict=True)
            columns = {"place": batch.places, **dict(zip(Answer._fields, map(list, made), strict=True))}
            journal.append(pl.DataFrame(columns).to_arrow())  # pyarrow, handed lists, imports pandas
        found = {row.pop("place"): Answer(**row) for kept in journal for row in kept.to_pylist()}
    if loaded.model.dtype != torch.float32:
        work.found |= alone(loaded, dataset, test, found, put, look)
    return table(dataset, [found[place] for place in range(total)])


def alone(
    model: Generative, dataset: str, test: Asked, together: dict[int, Answer], put: Asking, look: Callable[[bytes], Image.Image]
) -> dict[str, int]:
    """How many of some answers are others when each question is asked alone: in half precision a batch rounds otherwise."""
    places = sorted({round(place) for place in np.linspace(0, len(test.questions) - 1, N_ALONE)})
    images = {row.image_id: row.image for some in material.images(dataset, [test.image_ids[place] for place in places], 1) for row in some}
    changed = 0
    for place in places:
        inputs = model.inputs([query(test, place, images[test.image_ids[place]], put, look)], put.max_new_tokens)
        changed += model.generate(inputs, put.max_new_tokens)[0].text != together[place].text
    return {"asked_alone": len(places), "changed_alone": changed}


def batches(test: Asked, seen: Iterator[Window], put: Asking, model: Generative, size: int) -> Iterator[Batch]:
    """Questions that take about as many tokens, image included, together."""
    for window in seen:
        sizes = {name: decoded(name, data, opened).size for name, data in window.images.items()}
        texts, shown = (
            [put.text(test.questions[place]) for place in window.places],
            [sizes[test.image_ids[place]] for place in window.places],
        )
        lengths = dict(zip(window.places, model.lengths(texts, shown), strict=True))
        for places in by_length(window.places, lengths.__getitem__, size):
            yield Batch(places, window.images)


def rest(every: Iterator[Batch], done: set[int]) -> Iterator[Batch]:
    """What is not answered yet: whole batches, unless another version of a library cuts them otherwise now."""
    for batch in every:
        if places := [place for place in batch.places if place not in done]:
            yield batch._replace(places=places)


def opened(data: bytes) -> Image.Image:
    """An image of which only the header is read."""
    return Image.open(io.BytesIO(data))


def blank(data: bytes) -> Image.Image:
    """Grey, of the image's size: what a model answers without seeing anything."""
    return Image.new("RGB", decode(data).size, (128, 128, 128))


def shuffled(dataset: str, test: Asked, seed: int) -> list[str]:
    """For every question the image of another group, the same for every model: what a model answers whatever it sees.

    Raises MedbenchError where all samples are of one group.
    """
    groups = material.groups(dataset, "test")
    if len(set(groups)) < 2:
        found = "holds one group only: no question has another one's image"
        raise MedbenchError(paths.samples(dataset, "test"), found, "leave out ots-shuffled")
    keys = [hashlib.sha256(f"{seed}/{dataset}/{name}".encode()).digest() for name in test.sample_ids]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    images = list(test.image_ids)
    for position, place in enumerate(order):
        after = (order[(position + step) % len(order)] for step in range(1, len(order)))
        images[place] = test.image_ids[next(other for other in after if groups[other] != groups[place])]
    return images


def query(test: Asked, place: int, data: bytes, put: Asking, look: Callable[[bytes], Image.Image] = decode) -> Query:
    """One question of a split with its image, encoded in `data`, as `look` shows it."""
    image = decoded(test.image_ids[place], data, look)
    return Query(f"sample {test.sample_ids[place]}", image, put.text(test.questions[place]))
