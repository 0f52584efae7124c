"""Which figures a run gets: one heatmap a task and mode, one gap figure a task; none where it would be unreadable."""

from typing import Any, NamedTuple, TypeAlias

import polars as pl

from medbench.cells import Cell
from medbench.metrics.judging import SCORINGS
from medbench.metrics.measure import Measure
from medbench.report import results
from medbench.report.answer import deciding, ordered
from medbench.report.figures import MAX_GAPS, MAX_PANEL_CELLS, QUESTION_COLOURS, Figure, Square, forest, heatmap, square_text
from medbench.report.judged import METRIC
from medbench.report.results import TASKS, Material
from medbench.report.words import counted, number, with_interval

Values: TypeAlias = dict[Cell, dict[str, Any]]
"""Cell -> its row of a measure in the metrics."""


class Value(NamedTuple):
    """One field of the table beside a heatmap, as text: the estimate with its interval."""

    text: str
    in_domain: bool


class Panel(NamedTuple):
    """A heatmap with its table (models down, data sets across); `figure` is None where it would be unreadable, `skipped` says so."""

    title: str
    figure: Figure | None
    columns: list[str]
    rows: list[tuple[str, list[Value]]]
    skipped: str


class Shown(NamedTuple):
    """A measure in figures: its title, its name in file names, its value when guessing."""

    title: str
    slug: str
    chance: float | None


def gap_figures(material: Material) -> list[Figure]:
    """One figure a task with at least one gap and at most `MAX_GAPS`."""
    figures = []
    for task, chosen in TASKS.items():
        names = [name for name, facts in material.params.datasets.items() if facts.task == task]
        rows = deciding(material).filter(pl.col("dataset").is_in(names))
        figures += _gap_figure(material, _of_task(task), rows, material.params.margin(chosen.primary.metric))
    return figures


def judged_figures(material: Material) -> list[Figure]:
    """The study's figures of questions, by its overall judge score (open: judge, closed: 0 or 100): gaps, and what each model reaches.

    They are descriptive: the score has no margin and no verdict.
    """
    figures = []
    for scoring in SCORINGS:
        shown = Shown(f"overall judge score ({scoring}, descriptive)", f"judge-score-{scoring}", None)
        measure = Measure(METRIC, scoring, "all")
        own = [pl.col(name) == value for name, value in measure._asdict().items()]
        gaps = material.gaps.filter(pl.col("question").is_in(QUESTION_COLOURS), *own)
        figures += _gap_figure(material, shown, ordered(material, gaps), margin=0.0)
        for task in [name for name, chosen in TASKS.items() if chosen.judged]:
            values = _by_cell(results.of_measure(material, task, measure))
            figures += [panel.figure for panel in _panels(material, task, shown, values) if values and panel.figure]
    return figures


def _gap_figure(material: Material, shown: Shown, gaps: pl.DataFrame, margin: float) -> list[Figure]:
    """The gaps of one measure; none where nothing or too much is to be drawn."""
    rows = gaps.drop_nulls("gap")
    if not 0 < rows.height <= MAX_GAPS:
        return []
    labels, modes = (
        pl.col(column).replace_strict({name: facts.label for name, facts in known.items()}, return_dtype=pl.String)
        for column, known in (("dataset", material.params.datasets), ("adaptation", material.params.modes))
    )
    lines = rows.with_columns(row=pl.col("family") + " · " + labels, mode=modes)
    above = lines.filter(pl.col("low") > 0).height
    below = lines.filter(pl.col("high") < 0).height
    without = lines.filter(pl.col("low").is_null()).height
    level = f"{material.params.statistics['level']:.0%}"
    alt = (
        f"Gap in {shown.title}, generalist minus specialist, with {level} intervals, for {counted(rows.height, 'comparison')}: "
        f"{below} wholly below zero (specialist higher), {above} wholly above zero (generalist higher), "
        f"{rows.height - above - below - without} with zero inside{f', {without} without an interval' if without else ''}. "
        "tables/gaps.csv holds the same numbers."
    )
    return [forest(f"gaps-{shown.slug}", f"Gap in {shown.title}, generalist minus specialist", lines, shown.title, margin, alt)]


def panels(material: Material) -> list[Panel]:
    """Heatmaps task by task, in the order of the run's modes; a baseline stands under every panel of its task."""
    return [panel for task in TASKS for panel in _panels(material, task, _of_task(task), _by_cell(results.primary(material, task)))]


def _panels(material: Material, task: str, shown: Shown, values: Values) -> list[Panel]:
    found = []
    cells = [cell for cell in material.params.cells if material.params.datasets[cell.dataset].task == task]
    own = [cell for cell in cells if not _is_baseline(material, cell)]
    baselines = [cell for cell in cells if _is_baseline(material, cell)]
    for mode in material.params.modes:
        if chosen := [cell for cell in own if cell.mode == mode]:
            found.append(_panel(material, shown, mode, chosen, baselines, values))
    return found


def _by_cell(rows: pl.DataFrame) -> Values:
    return {Cell(row["dataset"], row["model"], row["mode"]): row for row in rows.to_dicts()}


def _of_task(task: str) -> Shown:
    """The primary metric; `auroc`, `closed-accuracy` is how it stands in file names."""
    return Shown(TASKS[task].title, TASKS[task].primary.metric.replace("_", "-"), TASKS[task].chance)


def _panel(material: Material, shown: Shown, mode: str, own: list[Cell], baselines: list[Cell], values: Values) -> Panel:
    title = f"{shown.title[0].upper()}{shown.title[1:]}, {material.params.mode_label(mode)}"
    columns = [name for name in material.params.datasets if any(cell.dataset == name for cell in own)]
    cells = [*own, *(cell for cell in baselines if cell.dataset in columns)]
    rows = {(cell.model, cell.mode): {other.dataset: other for other in cells if other[1:] == cell[1:]} for cell in cells}
    labels = {name: material.params.datasets[name].label for name in columns}
    table = [(_row_label(material, *key), [_value(material, of_row.get(name), values) for name in columns]) for key, of_row in rows.items()]
    if len(cells) > MAX_PANEL_CELLS:
        note = f"{counted(len(cells), 'value')}, too many to be read in a figure: see tables/metrics.csv."
        return Panel(title, None, list(labels.values()), [], note)
    squares = [
        _square(material, cell, labels[cell.dataset], values)
        for of_row in rows.values()
        for cell in (of_row[name] for name in columns if name in of_row)
    ]
    if squares and all(square.value is None for square in squares):
        return Panel(title, None, list(labels.values()), [], "no cell has a value: see the cautions for why, and open questions below.")
    size = f"{counted(len(rows), 'row')} (models, baselines last) by {counted(len(columns), 'data set')}"
    alt = f"Heatmap of {title}: {size}. {_extremes(squares)}"
    figure = heatmap(f"heatmap-{shown.slug}-{mode}", title, squares, shown.chance, alt)
    return Panel(title, figure, list(labels.values()), table, "")


def _square(material: Material, cell: Cell, column: str, values: Values) -> Square:
    row = values.get(cell)
    value = row["estimate"] if row else None
    in_domain = cell.dataset in material.params.models[cell.model].in_domain
    return Square(_row_label(material, cell.model, cell.mode), column, value, square_text(value) if row else "absent", in_domain)


def _value(material: Material, cell: Cell | None, values: Values) -> Value:
    if cell is None:
        return Value("", False)
    row = values.get(cell)
    text = with_interval(row["estimate"], row["low"], row["high"]) if row else "absent"
    return Value(text, cell.dataset in material.params.models[cell.model].in_domain)


def _row_label(material: Material, model: str, mode: str) -> str:
    facts = material.params.models[model]
    return f"{facts.label}, baseline" if facts.role == "baseline" else facts.label


def _extremes(squares: list[Square]) -> str:
    known = sorted(((square.value, square) for square in squares if square.value is not None), key=lambda pair: pair[0])
    if not known:
        return "No value exists."
    (low, worst), (high, best) = known[0], known[-1]
    ends = f"Lowest {number(low)} ({worst.row} on {worst.column}), highest {number(high)} ({best.row} on {best.column})."
    return f"{ends} All values stand in the table below it."


def _is_baseline(material: Material, cell: Cell) -> bool:
    return material.params.models[cell.model].role == "baseline"
