"""Predict with a linear probe on cached features."""

import numpy as np
import polars as pl

from medbench import material, paths
from medbench.adapt import linear
from medbench.adapt.base import log_softmax
from medbench.partial import Work
from medbench.stages.predict import Params


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-diagnosis` of the test split."""
    test = material.samples(dataset, "test", len(params.classes))
    classifier = linear.read(paths.adapter(dataset, model, mode) / "weights.safetensors")
    logits = classifier.logits(material.features(dataset, model, test.image_ids))
    return material.predictions(test, np.exp(log_softmax(logits)))
