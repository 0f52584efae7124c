"""Predict with a baseline that answers without looking: fitted on the training questions, no image and no model."""

import importlib

import polars as pl

from medbench.jobs.partial import Work
from medbench.predict.answers import Answered, asked, table
from medbench.predict.job import Params


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-vqa` of the test split; a token is a word."""
    assert params.source is not None, "this method loads a baseline"
    train, test = asked(params.task, dataset, "train"), asked(params.task, dataset)
    baseline = importlib.import_module(params.source["module"]).fit(train.questions, train.answers)
    answers = [baseline.answer(question) for question in test.questions]
    return table(params.task, dataset, [Answered(answer, "stop", len(answer.split())) for answer in answers])
