"""Validation split off the shelf, from cached embeddings and the class prompts."""

import polars as pl

from medbench.jobs.partial import Work
from medbench.predict.job import Params
from medbench.predict.zero_shot import MAIN, by_prompt_set
from medbench.tasks.diagnosis import predictions, samples


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-diagnosis` by prompt set `main`."""
    val = samples(dataset, "val", len(params.classes))
    return predictions(val, by_prompt_set(dataset, model, val, len(params.classes))[MAIN])
