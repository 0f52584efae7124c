"""Predict with an adapted vision tower and its head."""

from itertools import islice

import numpy as np
import polars as pl
import torch

from medbench import material, paths, runtime
from medbench.adapt import classifier as classifiers
from medbench.adapt.base import log_softmax
from medbench.datasets.images import decode
from medbench.models import base
from medbench.models.base import Contrastive
from medbench.models.checkpoint import Source
from medbench.models.feed import feed
from medbench.partial import Work
from medbench.progress import track
from medbench.stages.predict import Params


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-diagnosis` of the test split. Images are decoded while the device computes, and finished batches kept."""
    assert params.source is not None, "this method loads a model"
    source, test = Source(**params.source), material.samples(dataset, "test", len(params.classes))
    loaded: Contrastive = base.load(source, dtype=torch.float32)
    work.found["weights"] = loaded.weights
    classifier = classifiers.read(paths.adapter(dataset, model, mode) / "weights.safetensors", loaded)
    total = len(set(test.image_ids))
    with work.journal() as journal:
        rows = islice(material.images(dataset, test.image_ids, source.batch_size), len(journal), None)
        batches = feed(rows, lambda data: loaded.pixels(decode(data)), runtime.threads())
        done = min(len(journal) * source.batch_size, total)
        for batch in track(batches, f"predict {dataset}/{model}/{mode}, images", total, done, lambda one: len(one.image_ids)):
            logits = classifier.logits([batch.pixels], work.fitting)
            journal.append(pl.DataFrame({"image": batch.image_ids, "logits": logits}).to_arrow())  # pyarrow, handed lists, imports pandas
        answered = {image: logits for table in journal for image, logits in zip(*table.to_pydict().values(), strict=True)}
    logits = np.array([answered[image] for image in test.image_ids], dtype=np.float32)
    return material.predictions(test, np.exp(log_softmax(logits)))
