"""Predict with the linear probes of a few-shot cell: the scores of every draw, and their mean."""

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
    """Table `predictions-diagnosis` of the test split with column `draws`."""
    test = samples(dataset, "test", len(params.classes))
    features = stored.features(dataset, model, test.image_ids)
    classifiers = linear.read_all(paths.adapter_weights(dataset, model, mode))
    scores = np.stack([np.exp(log_softmax(classifier.logits(features))) for classifier in classifiers], axis=1)
    return predictions(test, scores.mean(axis=1), scores)
