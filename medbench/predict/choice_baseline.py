"""Predict lettered questions with a baseline that reads the texts of the test split alone, in the data's own order."""

import importlib
from string import ascii_uppercase
from typing import cast

import numpy as np
import polars as pl

from medbench.adapt.asked import AskedChoices, Said
from medbench.jobs.partial import Work
from medbench.predict.answers import asked, table
from medbench.predict.job import Params


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table of predictions of the test split. Right answers are known to a baseline: what it does with them, its file says."""
    assert params.source is not None, "this method loads a baseline"
    test = cast(AskedChoices, asked(params.task, dataset))
    found = importlib.import_module(params.source["module"]).log_probabilities(
        test.questions, test.options, [ascii_uppercase.index(answer) for answer in test.answers], test.group_ids
    )
    return table(params.task, dataset, [Said([0], [(values, 1.0)], ascii_uppercase[int(np.argmax(values))]) for values in found])
