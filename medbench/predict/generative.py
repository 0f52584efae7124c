"""Predict with whatever answers questions, off the shelf or with its adapter. Finished groups of answers are kept."""

import hashlib
from collections.abc import Sequence
from typing import Any

import polars as pl
from PIL import Image

from medbench import paths
from medbench.adapt.asked import Asked, AskedChoices
from medbench.datasets import stored
from medbench.datasets.images import decode
from medbench.errors import MedbenchError
from medbench.jobs.partial import Work
from medbench.jobs.progress import track
from medbench.models import answering
from medbench.models.answering import Answer, Questions
from medbench.models.asking import asking
from medbench.models.checkpoint import Source
from medbench.predict.answers import asked, table
from medbench.predict.job import Params


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table of predictions of the test split: the raw text of every answer."""
    test = asked(params.task, dataset)
    if params.image == "shuffled":
        test = test._replace(image_ids=shuffled(dataset, test, params.seed or 0))
    elif params.image == "none":
        test = test._replace(image_ids=[answering.NO_IMAGE] * len(test.image_ids))
    return table(params.task, dataset, answers(params, dataset, model, mode, test, work, "predict"))


def answers(params: Params, dataset: str, model: str, mode: str, put: Asked, work: Work, stage: str) -> list[Answer]:
    """One an asked question, in their order. Groups of answers that lie in `work` are kept; `stage` is what the progress is called."""
    assert params.source is not None and params.asking is not None, "this method asks a model"
    source, questions = Source(**params.source), questions_of(dataset, put, params)
    change = None
    if params.adapted:
        from medbench.adapt import tuned  # with peft, which takes as long to import as all the rest

        def change(loaded: Any) -> None:
            tuned.read(paths.adapter_weights(dataset, model, mode), loaded, source)

    answerer = answering.load(source, change)
    answerer.told = work.beside
    work.found["weights"] = answerer.weights
    with work.journal(answerer.weights) as journal:
        done = set() if work.beside.get("retry") else {place for kept in journal for place in kept["place"].to_pylist()}
        groups, what = answerer.answers(questions, done, work.microbatching), f"{stage} {dataset}/{model}/{mode}, questions"
        for group in track(groups, what, len(questions.texts), len(done), len):
            columns = dict(zip(Answer._fields, map(list, zip(*group.values(), strict=True)), strict=True))
            journal.append(pl.DataFrame({"place": list(group), **columns}).to_arrow())  # pyarrow, handed lists, imports pandas
        found = {row.pop("place"): Answer(**row) for kept in journal for row in kept.to_pylist()}
    work.found |= answerer.facts(questions, found)
    return [found[place] for place in range(len(questions.texts))]


def questions_of(dataset: str, test: Asked, params: Params) -> Questions:
    """The questions as the model reads them."""
    assert params.asking is not None, "this method asks a model"
    put = asking(params.asking)
    return Questions(
        [f"sample {name}" for name in test.sample_ids],
        [put.text(question) for question in test.questions],
        test.image_ids,
        lambda image_ids, size: stored.images(dataset, image_ids, size),
        blank if params.image == "blank" else decode,
        put.max_new_tokens,
    )


def blank(data: bytes) -> Image.Image:
    """Grey, of the image's size: what a model answers without seeing anything."""
    return Image.new("RGB", decode(data).size, (128, 128, 128))


def shuffled(dataset: str, test: Asked | AskedChoices, seed: int) -> list[Any]:
    """For every question the image (or images) of another group, the same for every model: what a model answers whatever it sees.

    A question without an image stays without. Raises MedbenchError where all samples are of one group.
    """
    groups = stored.groups(dataset, "test")
    if len(set(groups)) < 2:
        found = "holds one group only: no question has another one's image"
        raise MedbenchError(paths.samples(dataset, "test"), found, "leave out ots-shuffled")
    keys = [hashlib.sha256(f"{seed}/{dataset}/{name}".encode()).digest() for name in test.sample_ids]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    image_ids: Sequence[Any] = test.image_ids
    images = list(image_ids)
    for position, place in enumerate(order):
        after = (order[(position + step) % len(order)] for step in range(1, len(order)))
        others = (image_ids[other] for other in after if groups[other] != groups[place] and image_ids[other])
        images[place] = next(others, image_ids[place]) if image_ids[place] else image_ids[place]
    return images
