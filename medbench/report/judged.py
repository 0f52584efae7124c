"""What judges said of open answers: scores with their bounds, which judges were let, how well they agree. In points of 100."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from medbench import paths, tables
from medbench.cells import Cell
from medbench.jobs import files, integrity
from medbench.metrics.judging import HIGHEST
from medbench.report.params import Params
from medbench.report.words import NOTHING, listed
from medbench.stats.agreement import agreement

METRIC = "judge_score"
BOUND = 10.0  # points: two ratings that differ by more disagree


class Judged(NamedTuple):
    """`judgements`: rows of all cells, without what judges wrote; `calibrations`: judge -> scoring -> what its calibration found;
    `floors`: (cell, judge, scoring) -> mean of answers against a wrong reference."""

    judgements: pl.DataFrame
    calibrations: dict[str, dict[str, Any]]
    floors: dict[tuple[Cell, str, str], float]


class JudgeLine(NamedTuple):
    """A judge in a scoring, as text. `refused`: the bars that it misses."""

    judge: str
    scoring: str
    answered_by: str
    auroc: str
    sensitivity: str
    specificity: str
    worst: str  # kind of wrong answers that it accepts most often
    wordiness: str
    refused: str


class ScoreLine(NamedTuple):
    """One cell in a scoring, as text."""

    label: str
    model: str
    mode: str
    scoring: str
    n: str
    score: str  # of open answers
    bounds: str  # with every failed judgement at 1 and at 100
    overall: str  # with closed answers at 0 or 100
    floor: str


class AgreementLine(NamedTuple):
    """How well ratings of the same answers agree, as text: of judges, and of the repeats of one judge."""

    scoring: str
    raters: str
    n: str
    alpha: str
    icc: str
    difference: str
    over: str


def read(params: Params, present: tuple[Cell, ...]) -> Judged:
    """The tables of the run's cells; empty in a run without a judge."""
    frames, floors = [pl.DataFrame(schema={**dict.fromkeys(Cell._fields, pl.String), **_KEPT})], dict[tuple[Cell, str, str], float]()
    for cell in present if params.judges else ():
        if (path := paths.judgements(*cell)).exists():
            names = [pl.lit(value).alias(name) for name, value in cell._asdict().items()]
            rows = tables.read(tables.Judgements, path).filter(pl.col("judge").is_in(list(params.judges)))
            frames.append(rows.select(*names, *(pl.col(name).cast(kind) for name, kind in _KEPT.items())))
            found = (integrity.read(paths.run_record(path)) or {}).get("judges", {})
            floors |= {
                (cell, judge, scoring): facts["floor"] for judge, by in found.items() for scoring, facts in by.items() if "floor" in facts
            }
    known = {name: files.read_json(path) for name in params.judges if (path := paths.calibration(name)).exists()}
    return Judged(pl.concat(frames), known, floors)


_KEPT = {
    "sample_id": pl.String, "scoring": pl.String, "judge": pl.String, "repeat": pl.Int16, "state": pl.String, "score": pl.Float64,
    "answered_by": pl.String, "request": pl.String,
}  # fmt: skip


def judges(found: Judged, params: Params) -> list[JudgeLine]:
    """Every judge of the run in every scoring."""
    lines = []
    for name, known in found.calibrations.items():
        for scoring, report in known["scorings"].items():
            kind, share = max(report["false_accepts"].items(), key=lambda item: item[1], default=("", 0.0))
            auroc, sensitivity, specificity = (f"{report[field]:.2f}" for field in ("auroc", "sensitivity", "specificity"))
            worst = f"{share:.0%} of {kind}" if share else "none"
            lines.append(
                JudgeLine(
                    params.judges[name].label, scoring, listed(known["answered_by"]) or NOTHING, auroc, sensitivity, specificity,
                    worst, f"{report['wordiness']:+.0f}", "; ".join(report["faults"]),
                )
            )  # fmt: skip
    return lines


def scores(found: Judged, params: Params, metrics: pl.DataFrame) -> list[ScoreLine]:
    """Every cell with judged answers."""
    kinds = [METRIC, f"{METRIC}_lowest", f"{METRIC}_highest"]
    rows = metrics.filter(pl.col("metric").is_in(kinds), pl.col("method") == "logit", pl.col("estimate").is_not_null())
    lines = []
    key = ["dataset", "model", "mode", "scoring", "dataset_label", "model_label"]
    for (dataset, model, mode, scoring, label, model_label), frame in rows.group_by(key, maintain_order=True):
        by = {(row["metric"], row["subset"]): row for row in frame.to_dicts()}
        if (own := by.get((METRIC, "open"))) is None:
            continue
        low, high = (by.get((f"{METRIC}_{end}", "open")) for end in ("lowest", "highest"))
        floors = [value for (cell, _, how), value in found.floors.items() if (*cell, how) == (dataset, model, mode, scoring)]
        lines.append(
            ScoreLine(
                str(label), str(model_label), params.mode_label(str(mode)), str(scoring), f"{own['n']:,}", _points(own),
                f"{_point(low)} to {_point(high)}" if low and high and low["estimate"] != high["estimate"] else "none failed",
                _points(by.get((METRIC, "all"))), f"{np.mean(floors):.1f}" if floors else NOTHING,
            )
        )  # fmt: skip
    return lines


def agreements(found: Judged) -> list[AgreementLine]:
    """Over all judged answers of the run, each request once: between judges by their means, between repeats of one judge."""
    lines = []
    asked = found.judgements.filter(pl.col("state").is_in(["judged", "failed"]))
    for (scoring,), frame in asked.group_by("scoring", maintain_order=True):
        sample = ["dataset", "model", "mode", "sample_id"]
        if frame["judge"].n_unique() > 1:
            means = frame.group_by(*sample, "judge").agg(pl.col("score").mean())
            lines.append(_agreement(str(scoring), "judges", means.pivot("judge", index=sample, values="score").drop(sample)))
        for (judge,), own in frame.group_by("judge", maintain_order=True):
            if own["repeat"].n_unique() > 1:
                once = own.filter(pl.struct("request", "repeat").is_first_distinct())
                lines.append(
                    _agreement(str(scoring), f"repeats of {judge}", once.pivot("repeat", index=sample, values="score").drop(sample))
                )
    return lines


def _agreement(scoring: str, raters: str, ratings: pl.DataFrame) -> AgreementLine:
    found = agreement(ratings.cast(pl.Float64).fill_null(np.nan).to_numpy(), BOUND)
    alpha, icc = (NOTHING if value is None else f"{value:.2f}" for value in (found.alpha, found.icc))
    difference = NOTHING if found.mean_difference is None else f"{found.mean_difference:.1f}"
    return AgreementLine(
        scoring, raters, f"{found.n:,}", alpha, icc, difference, NOTHING if found.share_over is None else f"{found.share_over:.0%}"
    )


def _point(row: dict[str, Any] | None) -> str:
    return NOTHING if row is None or row["estimate"] is None else f"{row['estimate'] * HIGHEST:.1f}"


def _points(row: dict[str, Any] | None) -> str:
    if row is None or row["low"] is None:
        return _point(row)
    return f"{_point(row)} [{row['low'] * HIGHEST:.1f}, {row['high'] * HIGHEST:.1f}]"
