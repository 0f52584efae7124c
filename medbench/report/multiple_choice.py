"""The page's section on lettered questions: both scorings, liking for letters, controls, reasoning, sizes, data sets, reliability."""

from typing import Any, NamedTuple, TypeAlias

import polars as pl

from medbench import tasks
from medbench.cells import Cell
from medbench.report.results import LOST, Material
from medbench.report.words import NOTHING, counted, interval, number, p_value, signed, with_interval

SCORINGS = ("letter", "text")
SKILL = "skill-"
Cells: TypeAlias = dict[Cell, dict[tuple[str, str, str], dict[str, Any]]]
"""Cells of lettered questions, each with its metrics by (metric, scoring, subset)."""


class Grid(NamedTuple):
    """One table as text; `source`: the file that holds all of it; `said`: what to know before reading it."""

    title: str
    said: str
    caption: str
    columns: list[str]
    rows: list[list[str]]
    source: str


def grids(material: Material) -> list[Grid]:
    """All tables of the section that have a row; none in a run without lettered questions."""
    present = _present(material)
    own = _off_the_shelf(material, present)
    made = [
        *(make(material, own) for make in (_cells, _orders, _slices)), _controls(material, present),
        *(make(material) for make in (_reasoning, _roles, _variation, _reliability)),
    ]  # fmt: skip
    return [grid for grid in made if grid.rows]


def _present(material: Material) -> Cells:
    """Cells of lettered questions, each with its metrics by (metric, scoring, subset); limits are on the logit scale where there are."""
    lettered = [name for name in tasks.names() if tasks.is_lettered(name)]
    rows = material.metrics.filter(pl.col("task").is_in(lettered), pl.col("method").is_in(["percentile", "logit"])).to_dicts()
    found: Cells = {}
    for row in rows:
        key, cell = (row["metric"], row["scoring"], row["subset"]), Cell(row["dataset"], row["model"], row["mode"])
        if row["method"] == "percentile" or row["low"] is not None:
            found.setdefault(cell, {})[key] = row
    return {cell: found[cell] for cell in material.present if cell in found}


def _names(material: Material, cell: Cell) -> list[str]:
    labels = material.params.datasets[cell.dataset].label, material.params.models[cell.model].label
    return [*labels, material.params.mode_label(cell.mode)]


def _value(row: dict[str, Any] | None) -> str:
    return NOTHING if row is None else with_interval(row["estimate"], row["low"], row["high"])


def _point(row: dict[str, Any] | None) -> str:
    return NOTHING if row is None else number(row["estimate"])


def _chance(material: Material, dataset: str) -> float | None:
    found: float | None = material.cards.get(dataset, {}).get("splits", {}).get("test", {}).get("chance")
    return found


def _off_the_shelf(material: Material, present: Cells) -> Cells:
    """Cells of models that see their questions as they are."""
    controls = set(material.controls.filter(pl.col("kind") == "mode")["control"])
    models = material.params.models
    return {cell: of for cell, of in present.items() if models[cell.model].role != "baseline" and cell.mode not in controls}


def _cells(material: Material, own: Cells) -> Grid:
    states = {tuple(row[name] for name in Cell._fields): row for row in material.answers.to_dicts()}
    rows = []
    for cell, of in own.items():
        lost = states.get(tuple(cell), {})
        n = lost.get("n", 0)
        answers = [f"{n - sum(lost.get(state, 0) for state in LOST):,} parsed"]
        answers += [f"{lost[state]:,} {state}" for state in LOST if lost.get(state)]
        accuracies = [_value(of.get((name, scoring, "all"))) for name in ("accuracy", "macro_accuracy") for scoring in SCORINGS]
        agreement = _point(of.get(("agreement", "letter", "all")))
        chance = number(_chance(material, cell.dataset))
        rows.append([*_names(material, cell), f"{n:,}", chance, *accuracies[:2], agreement, ", ".join(answers), *accuracies[2:]])
    columns = ["Data set", "Model", "Mode", "Questions", "Chance", "By letter", "By text", "Agreement", "Answers in text"]
    columns += ["By letter, mean over categories", "By text, mean over categories"]
    if all(row[-2:] == [NOTHING, NOTHING] for row in rows):
        columns, rows = columns[:-2], [row[:-2] for row in rows]
    said = (
        "By letter: the likeliest letter where the answer begins, as the mean over several orders of the options. By text: what the "
        "written answer says; an answer without a choice is wrong. Agreement: how often both choose alike, where the text holds a choice. "
        "In a mean over categories all count alike, however many questions they have."
    )
    return Grid("Accuracy by letter and by text", said, "With intervals", columns, rows, "metrics")


def _orders(material: Material, own: Cells) -> Grid:
    cells = [(cell, of) for cell, of in own.items() if any(name == "flip_rate" for name, _, _ in of)]
    letters = sorted({metric for _, of in cells for metric, _, _ in of if metric.startswith("recall_")})
    names = ["all_right", "flip_rate", "low_mass", *letters]
    rows = [[*_names(material, cell), *(_point(of.get((name, "letter", "all"))) for name in names)] for cell, of in cells]
    columns = ["Data set", "Model", "Mode", "Right in all orders", "Flip rate", "Little mass"]
    said = (
        "Flip rate: questions whose choice changes with the order of the options. Little mass: orders in which all letters together have "
        "a probability under 0.5; such a model does not answer by letter, so believe its text. Recall: how often the right option is "
        "chosen where it stands behind that letter; without a liking for letters these are alike."
    )
    columns += [f"Recall {name.removeprefix('recall_')}" for name in letters]
    return Grid("Orders of the options", said, "By letter", columns, rows, "metrics")


def _slices(material: Material, own: Cells) -> Grid:
    rows = []
    for cell, of in own.items():
        scoring = _scoring(of)
        for (metric, by, subset), row in of.items():
            if metric == "accuracy" and by == scoring and subset.startswith(SKILL):
                above = of.get(("above_chance", by, subset))
                rows.append([*_names(material, cell)[:2], subset.removeprefix(SKILL), f"{row['n']:,}", by, _value(row), _point(above)])
    columns = ["Data set", "Model", "Skill", "Questions", "Scoring", "Accuracy", "Above chance"]
    said = "Skills are the data's own labels, or mapped from another field of it. Fewer than 30 questions have no value."
    return Grid("Accuracy by skill", said, "Off the shelf, with intervals", columns, rows, "metrics")


def _scoring(of: dict[tuple[str, str, str], dict[str, Any]]) -> str:
    own = of.get(("accuracy", "letter", "all"))
    return "letter" if own and own["estimate"] is not None else "text"


def _controls(material: Material, present: Cells) -> Grid:
    """Of every model off the shelf its own line, then a line a control and a baseline, by the scoring that it has."""
    rows = []
    table = material.controls.filter(
        pl.col("dataset").is_in([name for name, facts in material.params.datasets.items() if tasks.is_lettered(facts.task)])
    )
    for (dataset, model, mode), frame in table.group_by("dataset", "model", "mode", maintain_order=True):
        own = Cell(str(dataset), str(model), str(mode))
        if own not in present:
            continue
        scoring, names = _scoring(present[own]), _names(material, own)[:2]
        rows.append([*names, "its own question and image", *_reached(present[own], scoring), "", ""])
        for row in frame.filter(pl.col("scoring") == scoring).to_dicts():
            is_mode = row["kind"] == "mode"
            other = own._replace(mode=row["control"]) if is_mode else own._replace(model=row["control"])
            label = material.params.mode_label(row["control"]) if is_mode else f"baseline: {material.params.models[row['control']].label}"
            rows.append([*names, label, *_reached(present.get(other, {}), scoring), _gap(row, "gain"), p_value(row["p"])])
    columns = ["Data set", "Model", "Seen, or baseline", "Accuracy", "Above chance", "The model gains over it", "p"]
    said = (
        "What a model reaches without seeing what it is asked about. Above chance is (accuracy - c) / (1 - c), where c is what guessing "
        "reaches: 0 is guessing, 1 all right. The gain is the model's own accuracy minus that of the line, paired question by question; "
        "p is not adjusted. A model that gains nothing over its answers without an image does not use the image."
    )
    return Grid("Controls and baselines", said, "By letter where the model tells probabilities, else by text", columns, rows, "controls")


def _reached(of: dict[tuple[str, str, str], dict[str, Any]], scoring: str) -> list[str]:
    return [_value(of.get(("accuracy", scoring, "all"))), _point(of.get(("above_chance", scoring, "all")))]


def _reasoning(material: Material) -> Grid:
    rows = []
    labels = {"reasoning_gap": "all questions", "reasoning_gap_by_length": "questions of similar length"}
    for row in material.lettered["pairs"].filter(pl.col("metric").is_in(list(labels))).to_dicts():
        found = [number(row[name]) for name in ("generalist_estimate", "specialist_estimate")]
        names = [material.params.models[row[side]].label for side in ("generalist", "specialist")]
        label = material.params.datasets[row["dataset"]].label
        rows.append([label, *names, labels[row["metric"]], *found, _gap(row), p_value(row["p"])])
    columns = ["Data set", "Generalist", "Specialist", "Among", "Generalist's", "Specialist's", "Difference of the two", "p"]
    said = (
        "Accuracy on questions of reasoning minus accuracy on questions of understanding, for two models, and the difference of the two, "
        "paired by the same resamples. Questions of reasoning are often longer: the second line of each pair compares within fifths of "
        "the questions' number of words, weighted as Mantel and Haenszel do. If the two lines differ, length explains a part."
    )
    return Grid("Reasoning minus understanding", said, "Off the shelf, every generalist against every specialist", columns, rows, "pairs")


def _roles(material: Material) -> Grid:
    rows = []
    labels = {"reasoning_gap": "reasoning minus understanding", "macro_accuracy": "mean over categories", "accuracy": "all questions"}
    table = material.lettered["roles"].filter(pl.col("metric").is_in(list(labels)))
    for row in table.to_dicts():
        among = row["subset"].removeprefix(SKILL) if row["subset"] != "all" else labels[row["metric"]]
        label = "all data sets" if row["dataset"] == "all" else material.params.datasets[row["dataset"]].label
        counts = f"{row['n_generalists']} and {row['n_specialists']}"
        found = [number(row[name]) for name in ("generalist_estimate", "specialist_estimate")]
        rows.append([label, "all sizes" if row["size"] == "all" else row["size"], among, counts, *found, _gap(row), p_value(row["p"])])
    columns = ["Data set", "Size", "Among", "Generalists and specialists", "Generalists", "Specialists", "Difference", "p"]
    said = (
        "Mean accuracy of the generalists minus that of the specialists, off the shelf. Sizes are billions of parameters, of both sides; "
        "a model whose entry states none is in the line of all sizes alone. The line of all data sets weighs them alike. p is not adjusted."
    )
    return Grid("Generalists against specialists by data set, size and skill", said, "Paired, with intervals", columns, rows, "roles")


def _gap(row: dict[str, Any], name: str = "gap") -> str:
    """Difference with its interval, or why there is none."""
    if row[name] is None:
        return str(row["reason"])
    bounds = interval(row["low"], row["high"], sign=True)
    return f"{signed(row[name])} {bounds or '(' + row['reason'] + ')'}"


def _variation(material: Material) -> Grid:
    rows = []
    for row in material.lettered["variation"].filter(pl.col("k") > 1).to_dicts():
        ends = [material.params.datasets[row[end]].label if row[end] else NOTHING for end in ("lowest", "highest")]
        mean = with_interval(row["mean"], row["mean_low"], row["mean_high"]) if row["mean"] is not None else str(row["reason"])
        sd = with_interval(row["sd"], row["low"], row["high"])
        label = material.params.models[row["model"]].label
        rows.append([label, row["scoring"], str(row["k"]), mean, sd, number(row["sd_between"]), *ends])
    columns = ["Model", "Scoring", "Data sets", "Mean accuracy", "Standard deviation", "Without sampling error", "Lowest", "Highest"]
    said = "How far one model's accuracies lie apart over data sets: a mean alone hides a model that is good at one and poor at another."
    return Grid("One model over data sets", said, "Off the shelf, with intervals", columns, rows, "variation")


def _reliability(material: Material) -> Grid:
    table = material.lettered["reliability"]
    reliable = table.filter("is_reliable")
    threshold = number(table["threshold"][0]) if table.height else NOTHING
    rows = []
    for row in reliable.to_dicts():
        names = _names(material, Cell(row["dataset"], row["model"], row["mode"]))
        rows.append([*names, row["scoring"], _value(row)])
    of = counted(table.unique(list(Cell._fields)).height, "cell")
    n = reliable.unique(list(Cell._fields)).height
    said = f"Of {of}, {n or 'none'} {'has' if n < 2 else 'have'} an accuracy whose lower bound exceeds the threshold of {threshold}"
    said += ", which the run's statistics set as reliability_threshold."
    if table.height and not rows:
        best = table.drop_nulls("low").sort("low", descending=True).head(1).to_dicts()
        rows = [[*_names(material, Cell(row["dataset"], row["model"], row["mode"])), row["scoring"], f"below: {_value(row)}"]
                for row in best]  # fmt: skip
    columns = ["Data set", "Model", "Mode", "Scoring", "Accuracy"]
    caption = "With intervals" if n else "The nearest one, since there is none"
    return Grid("Cells above the reliability threshold", said, caption, columns, rows, "reliability")
