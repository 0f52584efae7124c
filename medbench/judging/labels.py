"""People's labels of open answers: a blind sheet, what comes back, and what it says of the judge."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from medbench import paths, tables, tasks
from medbench.cells import Cell
from medbench.datasets.layouts import Source
from medbench.datasets.reading import Records, records
from medbench.errors import MedbenchError, first
from medbench.metrics.judging import HIGHEST, LOWEST
from medbench.stats.agreement import Agreement, agreement, kappa
from medbench.stats.prediction_powered import Corrected, corrected_mean
from medbench.stats.resamples import Groups
from medbench.tables.spreadsheet import defused

COLUMNS = ("id", "question", "reference", "answer", "label", "drawn")
ANCHORS = (1, 25, 50, 75, 100)
"""Of the rubric; labels in between are allowed, and count as the nearest for kappa."""


class Answer(NamedTuple):
    """An open answer of a cell, as a person sees it."""

    cell: Cell
    sample_id: str
    group_id: str
    question: str
    reference: str
    answer: str

    @property
    def id(self) -> str:
        """Of what is seen alone: equal answers of two models are one line. A letter comes first, so that no spreadsheet reads a number."""
        return "a" + hashlib.sha256("\x00".join((self.question, self.reference, self.answer)).encode()).hexdigest()[:12]


class Sheet(NamedTuple):
    """What comes back: labels by the ids of their answers, all ids, and how many answers of every cell were drawn (None: not said)."""

    labels: dict[str, float]
    ids: frozenset[str]
    drawn: int | None


class Found(NamedTuple):
    """What labels say of one cell, in points of 100; `judge` is None where nobody judged."""

    cell: Cell
    corrected: Corrected | None
    labelled: float  # mean of the labels alone
    n: int


def open_answers(cell: Cell, task: str) -> list[Answer]:
    """Of a cell's test samples."""
    frame = tables.read(tasks.get(task).predictions, paths.predictions(*cell)).filter(pl.col("answer_type") == "open")
    rows = frame.select("sample_id", "group_id", "question", "reference", "answer").iter_rows()
    return [Answer(cell, *row) for row in rows]


def sampled(answers: Sequence[Answer], n: int, seed: int) -> list[Answer]:
    """`n` answers of a cell, drawn by their samples' names, each as likely as any other: the correction is of means over answers.

    Fewer are a prefix of more.
    """
    return sorted(answers, key=lambda one: hashlib.sha256(f"{seed}/{one.cell}/{one.sample_id}".encode()).digest())[:n]


def sheet(answers: Sequence[Answer], drawn: int) -> str:
    """CSV with a byte order mark, by which spreadsheets know its encoding; in an order that tells nothing of the models.

    `drawn`: how many of every cell, which every row says: it must hold once more cells have finished, too.
    What a spreadsheet would run as a formula gets an apostrophe in front.
    """
    lines = {one.id: one for one in answers}
    rows = [(id_, one.question, one.reference, one.answer, "", str(drawn)) for id_, one in sorted(lines.items())]
    return "\ufeff" + defused(pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")).write_csv()


def read(path: Path) -> Sheet:
    """A sheet with the label of every line that has one; whatever delimiter and encoding a spreadsheet chose.

    Raises MedbenchError with all labels that are no number from 1 to 100, and with all lines that label one answer otherwise than before.
    """
    try:
        sheet = _records(path)
        header = [name.strip().lower() for name in sheet.header]
        if wrong := [name for name in ("id", "label") if header.count(name) != 1]:
            raise MedbenchError(
                path, f"has not one column {' and one '.join(wrong)}", "give the sheet that `label --sheet` wrote, saved as CSV"
            )
        rows = list(sheet.rows)
    except MedbenchError as error:
        remedy = error.remedy if error.where == str(path) else "give the sheet, saved as CSV (UTF-8)"
        raise MedbenchError(path, error.found, remedy) from None
    found, faults, ids, drawn = dict[str, tuple[float, int]](), list[str](), set[str](), Counter[int]()
    for number, values in rows:
        if any(value.strip() for value in values[len(header) :]):
            faults.append(f"row {number}: {len(values)} values for {len(header)} columns")
            continue
        row = dict(zip(header, values, strict=False))
        name, number_drawn = row.get("id", "").strip(), row.get("drawn", "").strip()
        ids.add(name)
        drawn.update([int(number_drawn)] if number_drawn.isdecimal() and len(number_drawn) < 10 else [])
        if not (said := row.get("label", "").strip().replace(",", ".")):
            continue
        value = _number(said)
        before = found.setdefault(name, (value, number))
        if not LOWEST <= value <= HIGHEST:
            faults.append(f"row {number}: {said[:40]!r}")
        elif before[0] != value:
            faults.append(f"row {number}: {said[:40]!r} for the answer of row {before[1]}, which has {before[0]:g}")
    if faults:
        said = f"each answer gets one number from {LOWEST} to {HIGHEST}: {first(faults)}"
        raise MedbenchError(path, said, "correct them; labels of two people are two sheets")
    said_most = max(drawn, key=lambda number: (drawn[number], number), default=None)  # a slip in one row changes nothing
    return Sheet({name: value for name, (value, _) in found.items()}, frozenset(ids), said_most)


def _records(path: Path) -> Records:
    """Ids and labels are plain letters and digits, so any code page will do where the sheet's own cannot be told."""

    def read_as(encoding: str | None) -> Records:
        wanted = {*COLUMNS}
        return records(path, path.name, Source("labels", "vqa", path.parent, (), 0), lambda header: len({*header} & wanted), encoding)

    try:
        return read_as(None)
    except MedbenchError:
        return read_as("latin-1")


def _number(text: str) -> float:
    """NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def judged(cell: Cell, scoring: str) -> dict[str, float]:
    """Sample -> mean score of a cell's judges; empty where nobody judged."""
    if not (path := paths.judgements(*cell)).exists():
        return {}
    rows = tables.read(tables.Judgements, path).filter(pl.col("scoring") == scoring).drop_nulls("score")
    by_judge = rows.group_by("sample_id", "judge").agg(pl.col("score").mean())
    return dict(by_judge.group_by("sample_id").agg(pl.col("score").mean()).iter_rows())


def compare(
    drawn: Mapping[Cell, Sequence[Answer]], every: Mapping[Cell, Sequence[Answer]], labels: Mapping[str, float], scoring: str, level: float
) -> Iterator[Found]:
    """Of each cell: the judge's mean over all answers, corrected by the labels of those that were drawn."""
    for cell, answers in every.items():
        known = {one.sample_id: labels[one.id] for one in drawn.get(cell, ()) if one.id in labels}
        scores = judged(cell, scoring)
        used = [one for one in answers if one.sample_id in scores]
        if used:
            groups = Groups([one.group_id for one in used]).index
            own = np.array([known.get(one.sample_id, np.nan) for one in used])
            corrected = corrected_mean(np.array([scores[one.sample_id] for one in used]), own, groups, level)
        else:
            corrected = None
        yield Found(cell, corrected, float(np.mean([*known.values()])) if known else float("nan"), len(known))


def against_judge(drawn: Mapping[Cell, Sequence[Answer]], labels: Mapping[str, float], scoring: str) -> tuple[Agreement, float | None]:
    """Agreement of people and judge on the labelled answers, each once, and quadratic kappa of the nearest anchors."""
    pairs = {
        one.id: (labels[one.id], scores[one.sample_id])
        for cell, answers in drawn.items()
        for scores in [judged(cell, scoring)]
        for one in answers
        if one.id in labels and one.sample_id in scores
    }
    ratings = np.array(list(pairs.values())).reshape(-1, 2)
    levels = np.abs(ratings[:, :, None] - np.array(ANCHORS)).argmin(axis=2)
    return agreement(ratings), kappa(levels[:, 0], levels[:, 1], len(ANCHORS)) if len(ratings) else None
