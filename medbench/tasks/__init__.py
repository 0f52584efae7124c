"""Tasks: what a data set asks of a model. Everything that depends on the task stands in its file of this folder.

A task is found by its name, never imported by name elsewhere: so a new one reruns nothing, and a stage says by `code` which
definitions of its task it uses.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from medbench import paths, tables
from medbench.errors import MedbenchError
from medbench.metrics.measure import Measure
from medbench.tables.contract import Table

OTHERS = ("__init__", "reading")  # files of this folder that are no task


class Method(NamedTuple):
    """A module of `medbench.predict` or `medbench.adapt`.

    `reads`: what it reads beside the samples that it is made for: `embeddings`, `prompts`, `images`, `train` (the training samples),
    `model` (it loads the model).
    """

    module: str
    reads: tuple[str, ...]


class Scores(NamedTuple):
    """A table of scores, and what a person should know of it: how many samples have none, say."""

    table: pl.DataFrame
    note: str = ""


@dataclass(frozen=True)
class Task:
    """One kind of question. Functions are defined at the top of the task's module, so that each can be tracked by itself."""

    name: str
    rows: str
    """What layouts yield for it: `labels` (an image and its class), `questions` (an image, a question, an answer), or `choices` (images, a
    question, its options, the letter of the right one)."""
    answered_by: tuple[str, ...]
    """Kinds of models."""
    noun: str
    """What a row of the test split is called on the page."""
    samples: type[Table]
    predictions: type[Table]
    scores: type[Table]
    repeated: Mapping[str, str]
    """Column of predictions and scores -> column of the samples that it repeats."""
    predicted_by: Mapping[tuple[str, str], Method]
    """(kind of model, kind of recipe) -> what predicts."""
    adapted_by: Mapping[tuple[str, str], Method]
    """(kind of model, kind of recipe) -> what adapts."""
    validated_by: Mapping[tuple[str, str], Method]
    """(kind of model, kind of recipe) -> what predicts the validation split."""
    primary: Measure
    """The measure that decides, in strict scoring."""
    title: str
    """Its name on the page."""
    chance: float | None
    """Its value when guessing; None where that depends on the samples."""
    stratum: str
    """Column of the samples from whose every value validation is drawn alike, and by which the contact sheet is ordered."""
    strata: Callable[[Sequence[str]], list[tuple[Any, str]]]
    """(classes) -> values of that column with their labels."""
    check_entry: Callable[[Any], None]
    """(entry of the registry): raises ValueError for what the task cannot do without."""
    counts: Callable[..., dict[str, Any]]
    """(table of samples, classes) -> what the data card counts of a split."""
    effective_groups: Callable[..., float]
    """(table of samples, classes) -> effective groups behind the primary measure, before any model is asked."""
    score: Callable[..., Scores]
    """(predictions, where; where it asks, the model's marks of its thoughts) -> their scores, a row a sample."""
    scored: Callable[..., Any]
    """(predictions, or scores where `is_scored_first`; ids of test samples that another split holds too; where; prompt sets)
    -> `medbench.stats.table.Scored`."""
    fallback: Measure | None = None
    """What decides a comparison in which a model has no `primary`."""
    closed_options: Callable[[str, str], tuple[tuple[str, ...], str] | None] | None = None
    """(question, answer) -> options of a closed question in words and the letter of the right one, where the task wants choices."""
    certified: tuple[tuple[str, str], ...] = ()
    """(kind of model, kind of recipe) of adaptations whose certificate says what they reach on validation data by the primary measure."""
    notes: Callable[..., list[str]] | None = None
    """(table of samples) -> what is doubtful about them, a line each: said when they are prepared, and at every start."""
    is_scored_first: bool = False
    """Whether intervals follow from the table of scores instead of the predictions."""
    read_samples: Callable[..., Any] | None = None
    """(data set, split, number of classes, sample ids left out) -> `medbench.adapt.job.Samples`, where there are labels."""
    asked: Callable[..., Any] | None = None
    """(data set, split, sample ids left out) -> `medbench.adapt.asked.Asked`, where questions are asked."""
    answered: Callable[..., Any] | None = None
    """(data set, answers) -> table of predictions, where questions are asked."""
    uncalibrated: tuple[str, ...] = ()
    """Metrics that off the shelf rest on a threshold nobody has calibrated."""
    secondary: Measure | None = None
    """A second measure that decides, in comparisons of its own: of what judges said."""
    judged: Callable[..., Any] | None = None
    """(what `scored` gives, table `judgements`, scorings, how many judges are needed) -> the same with the judges' measures, where answers
    may be judged."""
    published: Measure | None = None
    """The measure of the study's published figures,"""
    published_file: tuple[str, str] | None = None
    """in this file of `resources/paper`, in this column."""

    def code(self, *fields: str) -> tuple[str, ...]:
        """`module:definition` of functions and tables of the task, for rerun keys."""
        return tuple(f"{value.__module__}:{value.__qualname__}" for value in (getattr(self, name) for name in fields) if value is not None)


def read_by_interval(name: str, dataset: str, model: str, mode: str) -> list[Path]:
    """The tables of a cell that its metrics follow from: predictions, and scores where the task has them first."""
    scores = [paths.scores(dataset, model, mode)] if get(name).is_scored_first else []
    return [paths.predictions(dataset, model, mode), *scores]


def is_finished(name: str, dataset: str, model: str, mode: str) -> bool:
    """Whether a cell counts: an interval without what it was made of is left over from an earlier state."""
    return all(table.exists() for table in (*read_by_interval(name, dataset, model, mode), paths.intervals(dataset, model, mode)))


def doubts(name: str, dataset: str) -> list[str]:
    """What is doubtful about the test samples of a prepared data set, a line each."""
    task = get(name)
    try:
        return task.notes(tables.read(task.samples, paths.samples(dataset, "test"))) if task.notes else []
    except MedbenchError:  # not prepared, or broken: who reads it says so
        return []


def is_lettered(name: str) -> bool:
    """Whether a task's questions have lettered options."""
    return get(name).rows == "choices"


def names() -> tuple[str, ...]:
    """All tasks."""
    return tuple(sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem not in OTHERS))


@cache
def get(name: str) -> Task:
    """A task by its name. Raises KeyError where there is none."""
    if name not in names():
        raise KeyError(name)
    task: Task = importlib.import_module(f"medbench.tasks.{name}").TASK
    return task
