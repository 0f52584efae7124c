"""Validation split of whatever answers questions: those that decide, asked as those of test are."""

import hashlib

import polars as pl

from medbench import paths, tables, tasks
from medbench.jobs.partial import Work
from medbench.predict.answers import asked, table
from medbench.predict.generative import answers
from medbench.predict.job import Params

MOST = 1000
"""Questions, the same of every model: with more the choice costs as much as the test."""


def predict(params: Params, dataset: str, model: str, mode: str, work: Work) -> pl.DataFrame:
    """Table `predictions-vqa` of closed questions; without rows where there is none, and nothing is asked."""
    task = tasks.get(params.task)
    val = tables.read(tables.Samples, paths.samples(dataset, "val"), ["sample_id", "answer_type"])
    closed = val.filter(val["answer_type"] == task.primary.subset)["sample_id"].to_list()
    if not closed:
        return tables.empty(task.predictions)
    chosen = sorted(closed, key=lambda name: hashlib.sha256(f"{dataset}/{name}".encode()).digest())[:MOST]
    left_out = frozenset(val["sample_id"]) - frozenset(chosen)
    found = answers(params, dataset, model, mode, asked(params.task, dataset, "val", left_out), work, "validate")
    return table(params.task, dataset, found, "val", left_out)
