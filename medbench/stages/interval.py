"""Intervals of every metric of a cell, from a grouped bootstrap that all cells of a data set share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medbench import paths, tables
from medbench.metrics.scored import PRIMARY, Scored, ScoredDiagnosis, ScoredVqa, Task, with_clean
from medbench.provenance import digest
from medbench.stages.score import score_matrix
from medbench.stats.resamples import Groups, Resamples
from medbench.stats.table import Plan, Row, rows

if TYPE_CHECKING:
    from medbench.config import Config

KEYS = ("dataset", "model", "mode")


class Params(NamedTuple):
    """What changes the intervals besides scores and predictions."""

    task: Task
    seed: int
    n_resamples: int
    n_test_resamples: int
    level: float
    bca: bool
    min_groups: int
    prompt_sets: tuple[str, ...] = ()  # of a diagnosis off the shelf, in the order of their names


def params(config: "Config", dataset: str, model: str, mode: str) -> Params:
    """Parameters of one cell. The margin is none: only gaps use it."""
    chosen, data = config.run.statistics, config.datasets[dataset]
    worded = config.modes[mode].kind == "zero-shot" and config.models[model].kind == "contrastive"
    return Params(
        data.task, config.run.seed, chosen.n_resamples, chosen.n_test_resamples, chosen.level, chosen.bca, chosen.min_groups,
        tuple(sorted(data.prompts)) if worded else (),
    )  # fmt: skip


def run(params: Params, dataset: str, model: str, mode: str) -> None:
    """Write `intervals/{dataset}/{model}/{mode}.parquet`."""
    cell = read(params.task, dataset, model, mode, params.prompt_sets)
    resamples = Resamples(params.seed, dataset, len(cell.groups))
    plan = Plan(params.n_resamples, params.n_test_resamples, params.level, params.bca, params.min_groups)
    frame = table(cell, rows(cell, PRIMARY[params.task], resamples, plan), plan)
    tables.write(tables.Intervals, frame, paths.intervals(dataset, model, mode))


def read(task: Task, dataset: str, model: str, mode: str, prompt_sets: Sequence[str] = ()) -> Scored:
    """A cell as arrays: of diagnosis from its predictions, since AUROC needs the scores; of questions from its scores."""
    twins = tables.read(tables.Twins, paths.twins(dataset)).filter(pl.col("split") == "test")["sample_id"].unique()
    if task == "diagnosis":
        path = paths.predictions(dataset, model, mode)
        return scored_diagnosis(tables.read(tables.PredictionsDiagnosis, path), twins, path, prompt_sets)
    return scored_vqa(tables.read(tables.ScoresVqa, paths.scores(dataset, model, mode)), twins)


def scored_diagnosis(predictions: pl.DataFrame, twins: pl.Series, where: object, prompt_sets: Sequence[str] = ()) -> ScoredDiagnosis:
    """From table `predictions-diagnosis` and the ids of samples that train or val holds too; `where` names the table in errors.

    `prompt_sets`: those of a cell off the shelf, by name.
    """
    everything = np.ones(len(predictions), dtype=bool)
    return ScoredDiagnosis(
        predictions["sample_id"].to_list(),
        Groups(predictions["group_id"].to_list()),
        with_clean({"all": everything}, _clean(predictions, twins)),
        predictions["label"].to_numpy().astype(np.int64),
        score_matrix(predictions, where),
        None if predictions["draws"].null_count() else np.array(predictions["draws"].to_list(), dtype=np.float64).transpose(1, 0, 2),
        dict(zip(prompt_sets, np.array(predictions["by_prompts"].to_list(), dtype=np.float64).swapaxes(0, 1), strict=True))
        if prompt_sets
        else {},
    )


def scored_vqa(scores: pl.DataFrame, twins: pl.Series) -> ScoredVqa:
    """From table `scores-vqa` and the ids of questions whose image train or val holds too.

    `parsed` becomes the share of closed answers from which a choice could be read.
    """
    kinds = scores["answer_type"].to_numpy()
    numbers = scores.select(pl.col("parsed").cast(pl.Float64).alias("parsed_strict"), pl.col("^.*_(strict|published)$")).fill_null(np.nan)
    values = {(metric, scoring): numbers[name].to_numpy() for name in numbers.columns for metric, _, scoring in [name.rpartition("_")]}
    subsets = {"all": np.ones(len(scores), dtype=bool), "open": kinds == "open", "closed": kinds == "closed"}
    clean = with_clean(subsets, _clean(scores, twins))
    return ScoredVqa(scores["sample_id"].to_list(), Groups(scores["group_id"].to_list()), clean, values)


def _clean(samples: pl.DataFrame, twins: pl.Series) -> NDArray[np.bool_]:
    return ~samples["sample_id"].is_in(twins.implode()).to_numpy()


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
            "unit": cell.groups.unit, "level": plan.level, "estimate": row.estimate,
            "sd": row.interval.sd, "low": row.interval.low, "high": row.interval.high, "n": row.n, "n_groups": row.n_groups,
            "n_resamples": plan.n_resamples, "n_undefined": row.interval.n_undefined, "few_groups": row.few_groups,
            "reason": row.interval.reason, "sample_digest": digests[masks[row.measure].tobytes()],
        }
        for row in made
    ]  # fmt: skip
    replicates = [None if row.replicates is None else pl.Series(row.replicates).fill_nan(None) for row in made]
    frame = pl.DataFrame(records, schema={name: kind for name, kind in columns.items() if name != "replicates"})
    return frame.with_columns(pl.Series("replicates", replicates, dtype=columns["replicates"]))
