"""The published figures: the study's questions recomputed from its tables alone, and a run beside them.

Published tables give estimates and intervals of single cells. That allows gaps of point estimates and counts of who
exceeds whom; intervals, p values and verdicts of gaps need pairing, and stay null with that reason.
"""

import csv
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import polars as pl

from medbench import paths, tables, tasks
from medbench.analysis.gaps import Estimate, Pair, Study, Unpaired, global_table, rq_table
from medbench.cells import Candidate, Cell
from medbench.metrics.measure import Measure

FOLDER = Path(__file__).parents[2] / "resources" / "paper"
PERCENT = 100.0  # published figures are percentages
TASKS = [task for task in map(tasks.get, tasks.names()) if task.published and task.published_file]
MEASURES: dict[str, Measure] = {task.name: task.published for task in TASKS if task.published}
FIGURES = {
    **dict.fromkeys(("task", "dataset", "model", "mode"), pl.String),
    **dict.fromkeys(("estimate", "low", "high", "sd"), pl.Float64),
}
NORMAL = NormalDist().inv_cdf(0.975)
NOT_THE_ARTICLES = (
    "Accuracy here is closed accuracy, the only figure of questions that the article's tables hold. Its own count for questions, 10 of 15, "
    "is of judge scores: the 12 of 15 below is another measure, no correction of it."
)
QUESTIONS = ("rq1", "rq2", "rq3")
OWN_MODES = {"lp": ("lp", "lp-published")}
"""Published mode -> modes that are set beside it, where there are others than its own name: `lp-published` is the study's recipe."""


class Names(NamedTuple):
    """The study's names in the registries' slugs; a name may mean two data sets, so the task is part of the key."""

    models: dict[str, tuple[str, str, str]]  # name -> slug, family, role
    datasets: dict[tuple[str, str], str]  # task, name -> slug


@cache
def names() -> Names:
    """From resources/paper/names.csv."""
    rows = rows_of("names.csv")
    return Names(
        {row["name"]: (row["slug"], row["family"], row["role"]) for row in rows if row["kind"] == "model"},
        {(row["task"], row["name"]): row["slug"] for row in rows if row["kind"] == "dataset"},
    )


def published() -> pl.DataFrame:
    """Every published figure of the study's data sets: columns of FIGURES, in fractions, by slugs. Other data sets are left out."""
    known = names()
    records = []
    for task, (file, column) in ((task.name, task.published_file) for task in TASKS if task.published_file):
        for row in rows_of(file):
            if (task, row["dataset"]) in known.datasets:
                values = [float(row[name]) / PERCENT if row.get(name) else None for name in (column, "ci_low", "ci_high", "sd")]
                records.append((task, known.datasets[task, row["dataset"]], known.models[row["model"]][0], row["mode"], *values))
    return pl.DataFrame(records, schema=FIGURES, orient="row")


def in_domain() -> dict[str, frozenset[str]]:
    """Specialist -> data sets in its domain, both as slugs, from the authors' analysis."""
    known = names()
    found: dict[str, set[str]] = {}
    for row in rows_of("in_domain.csv"):
        slug = next(slug for (task, name), slug in known.datasets.items() if name == row["in_domain_dataset"] and task in MEASURES)
        found.setdefault(known.models[row["specialist"]][0], set()).add(slug)
    return {model: frozenset(datasets) for model, datasets in found.items()}


class Figures:
    """The published tables as the gaps' source of numbers."""

    def __init__(self, figures: pl.DataFrame) -> None:
        rows = figures.iter_rows(named=True)
        self._values = {Cell(row["dataset"], row["model"], row["mode"]): (MEASURES[row["task"]], row["estimate"]) for row in rows}

    def measures(self, cell: Cell) -> list[Measure]:
        """The one that is published."""
        return [self._values[cell][0]] if cell in self._values else []

    def estimate(self, cell: Cell, measure: Measure) -> Estimate:
        """The published figure."""
        return Estimate(self._values[cell][1], None) if measure in self.measures(cell) else Estimate(None, "not published")

    def pair(self, first: Cell, second: Cell, measure: Measure) -> Pair | Unpaired:
        """Two estimates without a pairing."""
        return Pair(self._values[first][1], self._values[second][1], None, None, None, None)


def study(figures: pl.DataFrame) -> Study:
    """Who is compared with whom in the published tables."""
    domains = in_domain()
    candidates = [Candidate(slug, family, role, domains.get(slug, frozenset())) for slug, family, role in names().models.values()]
    cells = frozenset(Cell(*row) for row in figures.select("dataset", "model", "mode").iter_rows())
    task_of = {dataset: str(task) for dataset, task in figures.select("dataset", "task").unique(maintain_order=True).iter_rows()}
    # resamples, level, margin and group count stay unused: nothing is tested without pairing
    return Study(tuple(candidates), cells, task_of, "ots", ("lp", "lora"), 0.95, 0, MEASURES, {}, {})


def rq_tables() -> dict[str, pl.DataFrame]:
    """Tables `gaps` from the published figures alone: rq1, rq2, rq3, `global`, and `family`, its counterpart within families."""
    figures = published()
    who, results = study(figures), Figures(figures)
    made = {question: rq_table(question, who, results) for question in QUESTIONS}
    return {**made, "global": global_table(who, results), "family": global_table(who, results, within_family=True)}


def unpaired(gaps: pl.DataFrame, figures: pl.DataFrame) -> pl.DataFrame:
    """Gaps with `unpaired_low`, `unpaired_high` and `zero` (whether 0 lies between): 95% bounds as if both test sets had nothing in common.

    They come from the published sd of both sides, or the width of the published interval where there is none. That is conservative: the
    same samples make the two sides rise and fall together, which narrows the gap's own interval.
    """
    sd = pl.coalesce("sd", (pl.col("high") - pl.col("low")) / (2 * NORMAL))
    sides = figures.select("dataset", "model", "mode", sd)
    for side in ("generalist", "specialist"):
        keys = {"model": side, "mode": f"{side}_mode", "sd": f"{side}_sd"}
        gaps = gaps.join(sides.rename(keys), on=["dataset", side, f"{side}_mode"], how="left", maintain_order="left")
    reach = NORMAL * (pl.col("generalist_sd") ** 2 + pl.col("specialist_sd") ** 2).sqrt()
    bounds = {"unpaired_low": pl.col("gap") - reach, "unpaired_high": pl.col("gap") + reach, "zero": pl.col("gap").abs() <= reach}
    return gaps.with_columns(**bounds).drop("generalist_sd", "specialist_sd")


def including_zero(made: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Of how many gaps the unpaired bounds include 0, a row a question and adaptation, as `7 of 16`."""
    counted = _families(made).group_by("question", "adaptation", maintain_order=True).agg(pl.col("zero").sum(), of=pl.len())
    text = pl.format("{} of {}", "zero", "of").alias("unpaired bounds include 0")
    return counted.select(pl.col("question").cast(pl.String).str.to_uppercase(), "adaptation", text)


def _families(made: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """All gaps of families, with their unpaired bounds."""
    return unpaired(pl.concat([made[question] for question in QUESTIONS]).filter(pl.col("gap").is_not_null()), published())


def exceeding(gaps: pl.DataFrame) -> pl.DataFrame:
    """How many adapted generalists exceed the best and the second best specialist: question, adaptation, metric, rank, exceed, of."""
    key = ["question", "adaptation", "metric", "rank"]
    return (
        gaps.filter(pl.col("exceeds").is_not_null())
        .group_by(key, maintain_order=True)
        .agg(exceed=pl.col("exceeds").sum(), of=pl.len())
        .sort("metric", "question", "adaptation", "rank")
    )


def counts(made: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """`exceeding` of all families and of the own family side by side, one row a metric, question and adaptation, as `9 of 12`."""
    key = ["metric", "question", "adaptation"]
    views = []
    for view, title in (("global", "all families"), ("family", "own family")):
        found = exceeding(made[view]).with_columns(text=pl.format("{} of {}", "exceed", "of"))
        views += [
            found.filter(pl.col("rank") == rank).select(*key, pl.col("text").alias(f"{place}, {title}"))
            for rank, place in ((1, "best"), (2, "second best"))
        ]
    joined = views[0]
    for other in views[1:]:
        joined = joined.join(other, on=key, how="left", maintain_order="left")
    return joined.with_columns(pl.col("question").cast(pl.String).str.strip_prefix("global-").str.to_uppercase())


def gaps_side_by_side(made: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Every family's gap on every data set in points: one column a question and adaptation, null where the question is not asked.

    A star marks a gap whose unpaired bounds include 0.
    """
    rows = _families(made)
    column = pl.col("question").cast(pl.String).str.to_uppercase() + " " + pl.col("adaptation")
    texts = (pl.col("gap") * PERCENT).map_elements(lambda gap: f"{gap:+.2f}", return_dtype=pl.String)
    starred = pl.format("{}{}", texts, pl.when("zero").then(pl.lit("*")).otherwise(pl.lit(""))).alias("gap")
    wide = rows.select("family", "dataset", starred, column=column).pivot("column", index=["family", "dataset"], values="gap")
    return wide.with_row_index("place").sort(pl.col("place").min().over("family"), "place").drop("place")


def compare_paper() -> pl.DataFrame:
    """The cells on this disk beside their published figures, largest difference first.

    Columns: those of `published()` with the own mode, `own`, `own_low`, `own_high`, `own_sd`, `difference` (own - published) and
    `overlap`, whether the two intervals meet. Own intervals are made as the published ones are, of resampled samples. Closed accuracy is in
    the published scoring.
    """
    records: list[dict[str, Any]] = []
    figures = published().iter_rows(named=True)
    for row in ({**figure, "mode": mode} for figure in figures for mode in OWN_MODES.get(figure["mode"], (figure["mode"],))):
        path = paths.intervals(row["dataset"], row["model"], row["mode"])
        if path.exists():
            measure = MEASURES[row["task"]]
            chosen = {**measure._asdict(), "method": "published"}
            own = tables.read(tables.Intervals, path).filter(*(pl.col(name) == value for name, value in chosen.items()))
            for estimate, low, high, sd in own.select("estimate", "low", "high", "sd").iter_rows():
                overlap = None if low is None else bool(low <= row["high"] and row["low"] <= high)
                difference = None if estimate is None else estimate - row["estimate"]
                found = {"own": estimate, "own_low": low, "own_high": high, "own_sd": sd, "difference": difference, "overlap": overlap}
                records.append({**row, **found})
    own_columns = dict.fromkeys(("own", "own_low", "own_high", "own_sd", "difference"), pl.Float64)
    frame = pl.DataFrame(records, schema={**FIGURES, **own_columns, "overlap": pl.Boolean})
    return frame.sort(pl.col("difference").abs(), descending=True, nulls_last=True, maintain_order=True)


def command() -> None:
    """Print the study's questions as its published figures answer them, then the cells on this disk beside the figures."""
    made = rq_tables()
    print("From the published figures alone (in points; no pairing, so no interval, p value or verdict of a gap)")
    for question in QUESTIONS:
        _show(f"{question.upper()} per family, with bounds as if the two were of different samples", _gap_columns(made[question]))
    _show("The gaps side by side; * their unpaired bounds include 0", gaps_side_by_side(made))
    _show("Gaps whose unpaired bounds include 0", including_zero(made))
    print(f"\n{NOT_THE_ARTICLES}")
    _show("Adapted generalists that exceed the best and the second best specialist, data sets and generalists counted", counts(made))
    beside = compare_paper()
    if beside.is_empty():
        print("\nNo cell of the study lies under results/intervals: nothing to set beside the published figures.")
        return
    apart = beside.filter(~pl.col("overlap")).height
    in_points = beside.with_columns((pl.col(pl.Float64) * PERCENT).round(2)).drop("task")
    _show(f"{beside.height} cells beside the published figures, worst first; the intervals of {apart} do not meet", in_points)


def _gap_columns(gaps: pl.DataFrame) -> pl.DataFrame:
    in_points = [
        (pl.col(name) * PERCENT).round(2) for name in ("generalist_estimate", "specialist_estimate", "gap", "unpaired_low", "unpaired_high")
    ]
    shown = unpaired(gaps.filter(pl.col("gap").is_not_null()), published())
    return shown.select("adaptation", "family", "dataset", "generalist", "specialist", *in_points, "exceeds")


def markdown(frame: pl.DataFrame) -> str:
    """A table in Markdown, padded so that it can be read as it is."""
    rows = [frame.columns, *([_text(value) for value in row] for row in frame.iter_rows())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]])


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _show(title: str, frame: pl.DataFrame) -> None:
    print(f"\n{title}\n\n{markdown(frame)}")


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of a file of published figures."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
