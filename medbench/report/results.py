"""What a run left on disk, read once: metrics of every cell, gaps, overlap, data cards, certificates, run records.

A cell counts as present when its predictions, scores and intervals all exist; any other cell of the run is absent and is listed
with the last line that the failing stage logged.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import polars as pl

from medbench import paths, tables, tasks
from medbench.cells import Cell
from medbench.jobs import files
from medbench.metrics.measure import PROMPTS, Measure
from medbench.report import judged
from medbench.report.judged import Judged
from medbench.report.params import Params

ESTIMATES = [name for name in tables.columns(tables.Intervals) if name not in ("replicates", "sample_digest")]


TASKS = {name: tasks.get(name) for name in tasks.names()}
LETTERED = {"pairs": tables.Pairs, "roles": tables.Roles, "variation": tables.Variation, "reliability": tables.Reliability}


Way: TypeAlias = Callable[[Cell], Iterable[tuple[str, tuple[str, ...], Path]]]
"""Cell -> its jobs in the order of execution: stage, names, the output that shows it finished."""


class LeakFree(NamedTuple):
    """Samples of a data set's test split, and how many of them have no duplicate in train or val."""

    test: int
    leak_free: int


class Absent(NamedTuple):
    """A cell of the run that is not there: the stage that stopped it, its log file and the last error in it."""

    cell: Cell
    stage: str
    log: str
    error: str


class Material(NamedTuple):
    """Everything a report is made of. `metrics`: one row a cell, metric, scoring, subset and method; `cells`: one row a cell of the run."""

    run: str
    params: Params
    present: tuple[Cell, ...]
    absent: tuple[Absent, ...]
    metrics: pl.DataFrame
    gaps: pl.DataFrame
    confirmatory: pl.DataFrame  # on each side the one model that validation data chose
    pooled: pl.DataFrame
    overlap: pl.DataFrame
    leak_free: dict[str, LeakFree]
    cards: dict[str, dict[str, Any]]
    certificates: dict[Cell, dict[str, Any]]
    records: dict[Cell, dict[str, Any]]
    answers: pl.DataFrame  # one row a cell of questions: ANSWERS
    doubts: dict[str, list[str]]  # data set -> what is doubtful about its samples
    wording: pl.DataFrame  # zero-shot AUROC by every prompt set, as in `metrics`
    judged: Judged
    controls: pl.DataFrame  # models off the shelf against themselves in control modes, and against baselines
    lettered: dict[str, pl.DataFrame]  # of lettered questions: name -> table


def read(params: Params, run: str, way: Way) -> Material:
    """Read the run's files, relative to the working directory. `way`: the jobs that lead to a cell.

    Raises MedbenchError for a table that breaks its contract.
    """
    gone = {cell: Absent(cell, "predict", "", params.left_out[str(cell)]) for cell in params.cells if str(cell) in params.left_out}
    others = [cell for cell in params.cells if cell not in gone]
    missing = gone | {cell: absent for cell in others if (absent := _absent(cell, params.datasets[cell.dataset].task, way))}
    present = tuple(cell for cell in params.cells if cell not in missing)
    *questions, confirmatory, pooled = paths.gaps(run)
    metrics = _metrics(params, present)
    return Material(
        run,
        params,
        present,
        tuple(missing.values()),
        metrics,
        pl.concat([tables.read(tables.Gaps, path) for path in questions]),
        tables.read(tables.Confirmatory, confirmatory),
        tables.read(tables.PooledGaps, pooled),
        tables.read(tables.Overlap, paths.overlap(run)),
        {name: _leak_free(name) for name in params.datasets if paths.duplicates(name).exists()},
        {name: files.read_json(paths.card(name)) for name in params.datasets if paths.card(name).exists()},
        {cell: files.read_json(path) for cell in present if (path := paths.adapter(*cell) / "certificate.json").exists()},
        {cell: files.read_json(path) for cell in present if (path := paths.run_record(paths.predictions(*cell))).exists()},
        _answers(params, present),
        {name: tasks.doubts(facts.task, name) for name, facts in params.datasets.items()},
        _wording(metrics),
        judged.read(params, present),
        tables.read(tables.Controls, paths.controls(run)),
        {path.stem: tables.read(LETTERED[path.stem], path) for path in paths.lettered(run)},
    )


def of_cells(params: Params) -> Material:
    """The same of some cells that are there, without the run that compares them: no gaps, and no overlap with other data sets."""
    metrics = _metrics(params, params.cells)
    return Material(
        "",
        params,
        params.cells,
        (),
        metrics,
        pl.DataFrame(schema=tables.columns(tables.Gaps)),
        pl.DataFrame(schema=tables.columns(tables.Confirmatory)),
        pl.DataFrame(schema=tables.columns(tables.PooledGaps)),
        pl.DataFrame(schema=tables.columns(tables.Overlap)),
        {name: _leak_free(name) for name in params.datasets if paths.duplicates(name).exists()},
        {name: files.read_json(paths.card(name)) for name in params.datasets if paths.card(name).exists()},
        {cell: files.read_json(path) for cell in params.cells if (path := paths.adapter(*cell) / "certificate.json").exists()},
        {cell: files.read_json(path) for cell in params.cells if (path := paths.run_record(paths.predictions(*cell))).exists()},
        _answers(params, params.cells),
        {name: tasks.doubts(facts.task, name) for name, facts in params.datasets.items()},
        _wording(metrics),
        judged.read(params, params.cells),
        tables.empty(tables.Controls),
        {name: tables.empty(table) for name, table in LETTERED.items()},
    )


def primary(material: Material, task: str) -> pl.DataFrame:
    """The deciding metric of every present cell of a task, one row a cell, with the logit interval, which covers better near 1.

    On a data set of which a cell has only the task's fallback, every cell is shown by that one, so that they can be compared.
    """
    return _by_data_set(material, task, TASKS[task].primary, TASKS[task].fallback)


def primary_leak_free(material: Material, task: str) -> pl.DataFrame:
    """The same on the leak-free part of the test set."""
    chosen = TASKS[task]
    return _by_data_set(material, task, chosen.primary.leak_free, chosen.fallback and chosen.fallback.leak_free)


def of_measure(material: Material, task: str, measure: Measure) -> pl.DataFrame:
    """A measure of every present cell of a task, one row a cell, with the logit interval."""
    return _logit_rows(material, task).filter(_is(measure))


def without_primary(material: Material, task: str) -> set[Cell]:
    """Present cells that have no primary metric, and a value of the task's fallback."""
    chosen = TASKS[task]
    if chosen.fallback is None:
        return set()
    own, other = (
        {Cell(*row) for row in of_measure(material, task, measure).drop_nulls("estimate").select(Cell._fields).iter_rows()}
        for measure in (chosen.primary, chosen.fallback)
    )
    return other - own


def n_test(material: Material, row: dict[str, Any]) -> int | None:
    """Test samples of a row's data set, where its measure is of all of them."""
    found = material.leak_free.get(row["dataset"])
    return found.test if found and row["subset"] == "all" else None


def _by_data_set(material: Material, task: str, measure: Measure, fallback: Measure | None) -> pl.DataFrame:
    if not fallback:
        return of_measure(material, task, measure)
    lacking = {cell.dataset for cell in without_primary(material, task)}
    chosen = pl.when(pl.col("dataset").is_in(list(lacking))).then(_is(fallback)).otherwise(_is(measure))
    return _logit_rows(material, task).filter(chosen)


def _logit_rows(material: Material, task: str) -> pl.DataFrame:
    return material.metrics.filter(pl.col("task") == task, pl.col("method") == "logit")


def _is(measure: Measure) -> pl.Expr:
    return pl.all_horizontal(pl.col(name) == value for name, value in measure._asdict().items())


def _wording(metrics: pl.DataFrame) -> pl.DataFrame:
    chosen = metrics.filter(pl.col("scoring").str.starts_with(PROMPTS), pl.col("method") == "percentile")
    set_of = pl.col("scoring").str.strip_prefix(PROMPTS).alias("prompt_set")
    return chosen.select("dataset", "dataset_label", "model", "model_label", "mode", set_of, "estimate", "sd", "low", "high", "n")


LOST = "refused", "truncated", "unparsed", "filtered"
"""States of closed answers that hold no choice."""
ANSWERS = {
    "dataset": pl.String, "model": pl.String, "mode": pl.String, "n": pl.Int64, "n_closed": pl.Int64,
    **dict.fromkeys(LOST, pl.Int64), "cut": pl.Int64, "repetition": pl.Int64, "refusal": pl.Int64, "filter": pl.Int64,
    "empty": pl.Int64,
}  # fmt: skip


def _answers(params: Params, present: tuple[Cell, ...]) -> pl.DataFrame:
    """What cannot be judged of models' answers: closed ones without a choice; those that the budget or a repetition ended; empty ones."""
    rows = []
    for cell in present:
        task = TASKS[params.datasets[cell.dataset].task]
        if task.asked is None or params.models[cell.model].role == "baseline":
            continue
        columns = [name for name in tables.columns(task.predictions) if name in ("answer", "answer_type", "finish_reason")]
        given = tables.read(task.predictions, paths.predictions(*cell), columns)
        has_states = "state" in tables.columns(task.scores)
        states = (
            tables.read(task.scores, paths.scores(*cell), ["state"])["state"].cast(pl.String)
            if has_states
            else pl.Series([], dtype=pl.String)
        )
        reasons = given["finish_reason"].cast(pl.String)
        n_closed = (given["answer_type"].cast(pl.String) == "closed").sum() if "answer_type" in columns else given.height
        counts = [given.height, n_closed]
        counts += [(states == state).sum() for state in LOST]
        counts += [(reasons == reason).sum() for reason in ("length", "repetition", "refusal", "filter")]
        counts.append((given["answer"].str.strip_chars() == "").sum())
        rows.append(dict(zip(ANSWERS, [*cell, *counts], strict=True)))
    return pl.DataFrame(rows, schema=ANSWERS)


def _leak_free(dataset: str) -> LeakFree:
    test = tables.read(tables.Samples, paths.samples(dataset, "test"), ["sample_id"])
    duplicates = tables.read(tables.Duplicates, paths.duplicates(dataset)).filter(pl.col("split") == "test")
    return LeakFree(test.height, test.height - duplicates["sample_id"].n_unique())


def _metrics(params: Params, present: tuple[Cell, ...]) -> pl.DataFrame:
    """Intervals of all cells with names and labels in front, in the order of the run."""
    frames = []
    for cell in present:
        uncalibrated = TASKS[params.datasets[cell.dataset].task].uncalibrated if params.modes[cell.mode].kind == "zero-shot" else ()
        frame = tables.read(tables.Intervals, paths.intervals(*cell), columns=ESTIMATES)
        frames.append(
            frame.select(
                *(pl.lit(value).alias(name) for name, value in params.facts(cell).items()),
                *ESTIMATES,
                pl.col("metric").is_in(uncalibrated).alias("uncalibrated"),
            )
        )
    return pl.concat(frames) if frames else _metrics_schema()


def _metrics_schema() -> pl.DataFrame:
    """No metrics, with their columns: a run of which no cell exists still gets its report."""
    front = dict.fromkeys((*Cell._fields, "dataset_label", "model_label", "task", "family", "role"), pl.String) | {"in_domain": pl.Boolean}
    types = tables.columns(tables.Intervals)
    return pl.DataFrame(schema=front | {name: types[name] for name in ESTIMATES} | {"uncalibrated": pl.Boolean})


def _absent(cell: Cell, task: str, way: Way) -> Absent | None:
    """Why a cell is not there, or None for one that is. The first job on its way that ran (left a log) without its output is to blame."""
    if tasks.is_finished(task, *cell):
        return None
    for stage, names, output in way(cell):
        log = paths.log(stage, *names)
        if not output.exists() and log.exists():
            return Absent(cell, stage, str(log), last_error(log))
    return Absent(cell, "", "", "no job of this cell has run; an earlier job that it needs may have failed")


def last_error(log: Path) -> str:
    """The last line of a log that starts with ERROR, else its last line that is not empty, cut at 300 characters."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    line = (errors or lines or ["the log is empty: the job was ended from outside"])[-1]
    return line if len(line) <= 300 else line[:299] + "…"
