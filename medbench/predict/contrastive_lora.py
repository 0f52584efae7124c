"""Predict with an adapted vision tower and its head."""

from itertools import islice

import numpy as np
import polars as pl
import torch

from medbench import paths
from medbench.adapt import classifier as classifiers
from medbench.datasets import stored
from medbench.datasets.images import decode
from medbench.jobs import process
from medbench.jobs.partial import Work
from medbench.jobs.progress import track
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.models.loading import Contrastive
from medbench.models.prefetch import prefetch_pixels
from medbench.models.similarity import log_softmax
from medbench.predict.job import Params
from medbench.tasks.diagnosis import predictions, samples


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-diagnosis` of the test split. Images are decoded while the device computes, and finished batches kept."""
    assert params.source is not None, "this method loads a model"
    source, test = Source(**params.source), samples(dataset, "test", len(params.classes))
    loaded: Contrastive = loading.load(source, dtype=torch.float32)
    work.found["weights"] = loaded.weights
    classifier = classifiers.read(paths.adapter_weights(dataset, model, mode), loaded)
    total = len(set(test.image_ids))
    with work.journal(loaded.weights) as journal:
        rows = islice(stored.images(dataset, test.image_ids, source.batch_size), len(journal), None)
        batches = prefetch_pixels(rows, lambda data: loaded.pixels(decode(data)), process.threads())
        done = min(len(journal) * source.batch_size, total)
        for batch in track(batches, f"predict {dataset}/{model}/{mode}, images", total, done, lambda one: len(one.image_ids)):
            logits = classifier.logits([batch.pixels], work.microbatching)
            journal.append(pl.DataFrame({"image": batch.image_ids, "logits": logits}).to_arrow())  # pyarrow, handed lists, imports pandas
        answered = {image: logits for table in journal for image, logits in zip(*table.to_pydict().values(), strict=True)}
    logits = np.array([answered[image] for image in test.image_ids], dtype=np.float32)
    return predictions(test, np.exp(log_softmax(logits)))
