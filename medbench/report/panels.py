"""Which figures a run gets: one heatmap a task and mode, one gap figure a task; none where it would be unreadable."""

from typing import NamedTuple

import polars as pl

from medbench.cells import Cell
from medbench.report.answer import deciding
from medbench.report.figures import MAX_GAPS, MAX_PANEL_CELLS, Figure, Square, forest, heatmap, square_text
from medbench.report.results import TASKS, Material, primary
from medbench.report.words import counted, interval, number


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


def gap_figures(material: Material) -> list[Figure]:
    """One figure a task with at least one gap and at most `MAX_GAPS`."""
    figures = []
    for task, chosen in TASKS.items():
        names = [name for name, facts in material.params.datasets.items() if facts.task == task]
        rows = deciding(material).filter(pl.col("dataset").is_in(names), pl.col("gap").is_not_null())
        if 0 < rows.height <= MAX_GAPS:
            labels = pl.col("dataset").replace_strict(
                {name: material.params.datasets[name].label for name in names}, return_dtype=pl.String
            )
            modes = pl.col("adaptation").replace_strict(
                {mode: facts.label for mode, facts in material.params.modes.items()}, return_dtype=pl.String
            )
            lines = rows.with_columns(row=pl.col("family") + " · " + labels, mode=modes)
            above = lines.filter(pl.col("low") > 0).height
            below = lines.filter(pl.col("high") < 0).height
            alt = (
                f"Gap in {chosen.title}, generalist minus specialist, with 95% intervals, for {counted(rows.height, 'comparison')}: "
                f"{below} wholly below zero (specialist higher), {above} wholly above zero (generalist higher), "
                f"{rows.height - above - below} with zero inside. "
                "The tables above hold the same numbers."
            )
            title = f"Gap in {chosen.title}, generalist minus specialist"
            figures.append(forest(f"gaps-{slug(task)}", title, lines, chosen.title, material.params.margin(chosen.primary.metric), alt))
    return figures


def panels(material: Material) -> list[Panel]:
    """Heatmaps task by task, in the order of the run's modes; a baseline stands under every panel of its task."""
    found = []
    for task in TASKS:
        cells = [cell for cell in material.params.cells if material.params.datasets[cell.dataset].task == task]
        own = [cell for cell in cells if not _is_baseline(material, cell)]
        baselines = [cell for cell in cells if _is_baseline(material, cell)]
        values = {Cell(row["dataset"], row["model"], row["mode"]): row for row in primary(material, task).to_dicts()}
        for mode in material.params.modes:
            chosen = [cell for cell in own if cell.mode == mode]
            if chosen:
                found.append(_panel(material, task, mode, chosen, baselines, values))
    return found


def slug(task: str) -> str:
    """`auroc`, `closed-accuracy`: how a task's primary metric stands in file names."""
    return TASKS[task].primary.metric.replace("_", "-")


def _panel(
    material: Material, task: str, mode: str, own: list[Cell], baselines: list[Cell], values: dict[Cell, dict[str, float | None]]
) -> Panel:
    name = TASKS[task].title
    title = f"{name[0].upper()}{name[1:]}, {material.params.mode_label(mode)}"
    columns = [name for name in material.params.datasets if any(cell.dataset == name for cell in own)]
    shown = [*own, *(cell for cell in baselines if cell.dataset in columns)]
    rows = {(cell.model, cell.mode): {other.dataset: other for other in shown if other[1:] == cell[1:]} for cell in shown}
    labels = {name: material.params.datasets[name].label for name in columns}
    table = [(_row_label(material, *key), [_value(material, of_row.get(name), values) for name in columns]) for key, of_row in rows.items()]
    if len(shown) > MAX_PANEL_CELLS:
        note = f"{counted(len(shown), 'value')}, too many to be read in a figure: see tables/metrics.csv."
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
    figure = heatmap(f"heatmap-{slug(task)}-{mode}", title, squares, TASKS[task].chance, alt)
    return Panel(title, figure, list(labels.values()), table, "")


def _square(material: Material, cell: Cell, column: str, values: dict[Cell, dict[str, float | None]]) -> Square:
    row = values.get(cell)
    value = row["estimate"] if row else None
    in_domain = cell.dataset in material.params.models[cell.model].in_domain
    return Square(_row_label(material, cell.model, cell.mode), column, value, square_text(value) if row else "absent", in_domain)


def _value(material: Material, cell: Cell | None, values: dict[Cell, dict[str, float | None]]) -> Value:
    if cell is None:
        return Value("", False)
    row = values.get(cell)
    text = f"{number(row['estimate'])} {interval(row['low'], row['high'])}".strip() if row else "absent"
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
