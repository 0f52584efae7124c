"""Predict with an adapted vision tower and its head."""

import numpy as np
import polars as pl
import torch

from medbench import material, paths, runtime
from medbench.adapt import classifier as classifiers
from medbench.adapt.base import Source, log_softmax
from medbench.datasets.images import decode
from medbench.models import base
from medbench.models.base import Contrastive
from medbench.models.feed import feed
from medbench.stages.predict import Params


def predict(params: Params, dataset: str, model: str, mode: str) -> pl.DataFrame:
    """Table `predictions-diagnosis` of the test split. Images are decoded while the device computes."""
    assert params.source is not None, "this method loads a model"
    source, test = Source(**params.source), material.samples(dataset, "test", len(params.classes))
    loaded: Contrastive = base.load(source.module, source.checkpoint, source.revision, dtype=torch.float32)
    classifier = classifiers.read(paths.adapter(dataset, model, mode) / "weights.safetensors", loaded)
    row: dict[str, int] = {}
    logits = []
    for batch in feed(
        material.images(dataset, test.image_ids, source.batch_size), lambda data: loaded.pixels(decode(data)), runtime.threads()
    ):
        row |= {image: len(row) + position for position, image in enumerate(batch.image_ids)}
        logits.append(classifier.logits([batch.pixels]))
    scores = np.exp(log_softmax(np.concatenate(logits)))
    return material.predictions(test, scores[[row[image] for image in test.image_ids]])
