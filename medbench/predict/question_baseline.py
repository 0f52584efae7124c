"""Predict with a baseline that answers without looking: fitted on the training questions, no image and no model."""

import importlib

import polars as pl

from medbench import material
from medbench.partial import Work
from medbench.predict.answers import Answered, table
from medbench.stages.predict import Params


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-vqa` of the test split; a token is a word."""
    assert params.source is not None, "this method loads a baseline"
    train, test = material.asked(dataset, "train"), material.asked(dataset, "test")
    baseline = importlib.import_module(params.source["module"]).fit(train.questions, train.answers)
    answers = [baseline.answer(question) for question in test.questions]
    return table(dataset, [Answered(answer, "stop", len(answer.split())) for answer in answers])
