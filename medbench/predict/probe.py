"""Predict with a linear probe on cached features."""

import numpy as np
import polars as pl

from medbench import paths
from medbench.adapt import linear
from medbench.datasets import stored
from medbench.jobs.partial import Work
from medbench.models.similarity import log_softmax
from medbench.predict.job import Params
from medbench.tasks.diagnosis import predictions, samples


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-diagnosis` of the test split."""
    test = samples(dataset, "test", len(params.classes))
    classifier = linear.read(paths.adapter_weights(dataset, model, mode))
    logits = classifier.logits(stored.features(dataset, model, test.image_ids))
    return predictions(test, np.exp(log_softmax(logits)))
