"""Questions in, answers out, as the task reads and keeps them."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import polars as pl

from medbench import tasks
from medbench.adapt.asked import Asked


class Answered(NamedTuple):
    """One answer. `finish_reason` is stop, length, repetition, refusal or filter."""

    text: str
    finish_reason: str
    n_tokens: int


def asked(task: str, dataset: str, split: str = "test", left_out: Collection[str] = ()) -> Asked:
    """One split of a data set whose task asks questions, without the samples `left_out`."""
    read = tasks.get(task).asked
    assert read is not None, "the task names a method that asks"
    found: Asked = read(dataset, split, left_out)
    return found


def table(task: str, dataset: str, answers: Sequence[Any], split: str = "test", left_out: Collection[str] = ()) -> pl.DataFrame:
    """Table of predictions of answers, as the task keeps them, in the order of a split without the samples `left_out`."""
    keep = tasks.get(task).answered
    assert keep is not None, "the task names a method that asks"
    frame: pl.DataFrame = keep(dataset, answers, split, left_out)
    return frame
