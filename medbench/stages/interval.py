"""Intervals of every metric of a cell, from a grouped bootstrap that all cells of a data set share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables, tasks
from medbench.errors import MedbenchError
from medbench.jobs.digests import digest
from medbench.jobs.stage import Needs, Stage
from medbench.metrics.measure import Measure
from medbench.stats.resamples import Resamples
from medbench.stats.table import PUBLISHED_LEVEL, Plan, Row, Scored, rows, shortage
from medbench.tasks.reading import require_test

if TYPE_CHECKING:
    from medbench.config import Config


class Judging(NamedTuple):
    """How judgements become scores; without scorings nobody judges."""

    scorings: tuple[str, ...] = ()
    minimum: int = 1  # judges whose score is needed


class Params(NamedTuple):
    """What changes the intervals besides scores and predictions."""

    task: str
    primary: tuple[str, str, str]  # fields of Measure
    seed: int
    n_resamples: int
    n_test_resamples: int
    level: float
    bca: bool
    min_groups: int
    prompt_sets: tuple[str, ...] = ()  # of a diagnosis off the shelf, in the order of their names
    judging: Judging = Judging()
    secondary: tuple[str, str, str] | None = None  # fields of a Measure that decides in comparisons of its own
    fallback: tuple[str, str, str] | None = None  # and of one that decides where a model has no primary measure


def params(config: "Config", dataset: str, model: str, mode: str) -> Params:
    """Parameters of one cell. The margin is none: only gaps use it."""
    chosen, data = config.run.statistics, config.datasets[dataset]
    worded = config.modes[mode].kind == "zero-shot" and config.models[model].kind == "contrastive"
    return Params(
        data.task, tasks.get(data.task).primary, config.run.seed,
        chosen.n_resamples, chosen.n_test_resamples, chosen.level, chosen.bca, chosen.min_groups,
        tuple(sorted(data.prompts)) if worded else (), judging(config, data.task), secondary(config, data.task),
        tasks.get(data.task).fallback,
    )  # fmt: skip


def judging(config: "Config", task: str) -> Judging:
    """How a run has the answers of a task judged."""
    chosen = config.run.judge
    return Judging(chosen.scorings, chosen.minimum) if chosen and tasks.get(task).judged else Judging()


def secondary(config: "Config", task: str) -> Measure | None:
    """The secondary measure of a task, in a run with a judge that gives it."""
    found = tasks.get(task).secondary
    return found if found and found.scoring in judging(config, task).scorings else None


def run(params: Params, dataset: str, model: str, mode: str) -> None:
    """Write `intervals/{dataset}/{model}/{mode}.parquet`."""
    cell = read(params.task, dataset, model, mode, params.prompt_sets, params.judging)
    resamples = Resamples(params.seed, dataset, len(cell.groups))
    plan = Plan(params.n_resamples, params.n_test_resamples, params.level, params.bca, params.min_groups)
    also = [Measure(*measure) for measure in (params.fallback, params.secondary) if measure]
    frame = table(cell, rows(cell, Measure(*params.primary), resamples, plan, also), plan)
    tables.write(tables.Intervals, frame, paths.intervals(dataset, model, mode))


def inputs(params: Params, dataset: str, model: str, mode: str) -> list[Path]:
    """What a cell's metrics follow from: test samples, which of them are not used twice, predictions or their scores, judgements."""
    own = [paths.samples(dataset, "test"), paths.duplicates(dataset), *tasks.read_by_interval(params.task, dataset, model, mode)]
    return [*own, *([paths.judgements(dataset, model, mode)] if params.judging[0] else [])]


def read(name: str, dataset: str, model: str, mode: str, prompt_sets: Sequence[str] = (), judged: Sequence[Any] = Judging()) -> Scored:
    """A cell of a task as arrays. `prompt_sets`: those of a diagnosis off the shelf, in the order of their names; `judged`: `Judging`."""
    task = tasks.get(name)
    duplicates = tables.read(tables.Duplicates, paths.duplicates(dataset)).filter(pl.col("split") == "test")["sample_id"].unique()
    path = paths.scores(dataset, model, mode) if task.is_scored_first else paths.predictions(dataset, model, mode)
    frame = tables.read(task.scores if task.is_scored_first else task.predictions, path)
    require_test(frame, path, dataset, task.repeated)
    scored: Scored = task.scored(frame, duplicates, path, prompt_sets)
    by_judges = paths.judgements(dataset, model, mode)
    if (how := Judging(*judged)).scorings and task.judged and by_judges.exists():  # `now` judges nothing
        scored = task.judged(scored, tables.read(tables.Judgements, by_judges), *how)
    return scored


def code(name: str, is_judged: bool = False) -> tuple[str, ...]:
    """What `read` uses of a task."""
    return tasks.get(name).code("scored", "predictions", "scores", *(["judged"] if is_judged else []))


def no_verdicts(config: "Config") -> list[str]:
    """Data sets of a run whose test split is too small for a verdict, a line each: known before any model is asked.

    Of a data set that is not prepared the number of groups is known where its entry says so; its effective groups are no more.
    """
    least, found = config.run.statistics.min_groups, []
    for dataset in config.run.datasets:
        entry, path = config.datasets[dataset], paths.samples(dataset, "test")
        task = tasks.get(entry.task)
        try:
            test = tables.read(task.samples, path, ["group_id", task.stratum])
        except MedbenchError:  # not prepared, or broken: who reads it says so
            if (most := entry.about.test_groups) is not None and most < least:
                found.append(f"{dataset}: {most} groups at most, fewer than {least} effective ones, behind its {task.title}")
            continue
        if (effective := task.effective_groups(test, entry.classes)) < least:
            found.append(f"{dataset}: {shortage(effective, least)}, behind its {task.title}")
    return found


def doubts(config: "Config") -> list[str]:
    """Prepared data sets of a run whose answers are hard to score, a line each."""
    return [f"{name}: {line}" for name in config.run.datasets for line in tasks.doubts(config.datasets[name].task, name)]


def sample_digest(cell: Scored, used: NDArray[np.bool_]) -> str:
    """Of the test set's ids and groups, and which of them were used: cells with equal digests may be paired replicate by replicate."""
    names = cell.groups.names
    samples = zip(cell.ids, cell.groups.index.tolist(), used.tolist(), strict=True)
    return digest("\n".join(sorted(f"{id_}\t{names[group]}\t{use}" for id_, group, use in samples)))


def table(cell: Scored, made: list[Row], plan: Plan) -> pl.DataFrame:
    """Table `intervals` of a cell's rows."""
    masks = {row.measure: cell.used(row.measure) for row in made}
    digests = {mask.tobytes(): sample_digest(cell, mask) for mask in {mask.tobytes(): mask for mask in masks.values()}.values()}
    columns = tables.columns(tables.Intervals)
    records = [
        {
            "metric": row.measure.metric, "scoring": row.measure.scoring, "subset": row.measure.subset, "method": row.method,
            "unit": "sample" if row.method == "published" else cell.groups.unit,
            "level": PUBLISHED_LEVEL if row.method == "published" else plan.level, "estimate": row.estimate, "sd": row.interval.sd,
            "low": row.interval.low, "high": row.interval.high, "n": row.n, "n_groups": row.n_groups,
            "effective_groups": row.effective_groups, "n_resamples": row.n_resamples, "n_undefined": row.interval.n_undefined,
            "few_groups": row.few_groups,
            "reason": row.interval.reason, "sample_digest": digests[masks[row.measure].tobytes()],
        }
        for row in made
    ]  # fmt: skip
    replicates = [None if row.replicates is None else pl.Series(row.replicates).fill_nan(None) for row in made]
    frame = pl.DataFrame(records, schema={name: kind for name, kind in columns.items() if name != "replicates"})
    return frame.with_columns(pl.Series("replicates", replicates, dtype=columns["replicates"]))


STAGE = Stage(
    name="interval",
    keys=("dataset", "model", "mode"),
    params=params,
    inputs=inputs,
    outputs=lambda *cell: [paths.intervals(*cell)],
    run=run,
    uses=lambda params: code(params.task, bool(params.judging[0])),
    needs=lambda config, *names: Needs(memory_mb=1000, minutes=30),
    is_handed=True,
)
