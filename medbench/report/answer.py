"""The answer first: per question and adaptation the verdict of every family and data set, and one sentence that sums them up."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from medbench.cells import Cell
from medbench.report.params import ModelFacts, Params
from medbench.report.results import TASKS, Material, n_test, without_primary
from medbench.report.words import QUESTIONS, counted, interval, listed, number, p_value, question_title, signed
from medbench.stats.paired import is_within

SIDES = ("generalist", "specialist")
VERDICTS = (*SIDES, "equivalent", "undecided")
NO_VERDICT = "no verdict"
WITHIN = "ahead, within the margin"
MOST_TIMES = 100
MOST_ADVISED = 6  # data sets in the lines that a start ends with


class Line(NamedTuple):
    """One comparison as the page shows it; all texts. `pair`: the two sides with their values; `note`: what to know of the verdict.

    `bias`: what choosing the best on test adds to the gap.
    """

    family: str
    dataset: str
    verdict: str
    gap: str
    interval: str
    pair: str
    p: str
    detectable: str
    note: str
    bias: str


class Part(NamedTuple):
    """One question under one adaptation.

    `pooled`: one sentence a family that could be pooled. `confirmatory`: of all comparisons, where any side had a choice; else empty.
    """

    key: str
    title: str
    adaptation: str
    question: str
    summary: str
    lines: list[Line]
    pooled: list[str]
    confirmed: str
    confirmatory: list[Line]


class Overview(NamedTuple):
    """Families down, parts across; a field holds the verdicts in words."""

    titles: list[str]
    rows: list[tuple[str, list[str]]]


def deciding(material: Material, secondary: bool = False) -> pl.DataFrame:
    """The gaps on the primary (or the secondary) metric of each data set's task, family-wise, as `ordered`."""
    measures = {
        name: TASKS[facts.task].secondary if secondary else TASKS[facts.task].primary for name, facts in material.params.datasets.items()
    }
    chosen = [
        pl.all_horizontal(pl.col("dataset") == name, *(pl.col(key) == value for key, value in measure._asdict().items()))
        for name, measure in measures.items()
        if measure
    ]
    own = pl.any_horizontal(*chosen) if chosen else pl.lit(False)
    rows = material.gaps.filter(pl.col("question").is_in(list(QUESTIONS)))
    found = rows.filter(own)
    return ordered(material, found if secondary else _as_decided(material, found, rows))


def _as_decided(material: Material, primary: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """With the row of a task's fallback in place of the primary one, wherever a cell of the comparison has no primary measure."""
    lacking = {cell for task in TASKS for cell in without_primary(material, task)}
    others = {name: other for name, facts in material.params.datasets.items() if (other := TASKS[facts.task].fallback)}
    chosen = [
        pl.all_horizontal(pl.col("dataset") == name, *(pl.col(key) == value for key, value in measure._asdict().items()))
        for name, measure in others.items()
    ]
    comparison = ["question", "adaptation", "family", "dataset"]
    found = rows.filter(pl.any_horizontal(*chosen)) if chosen else rows.clear()
    decided = found.filter([any(_takes_part(material, row, cell) for cell in lacking) for row in found.to_dicts()])
    return pl.concat([primary.join(decided, on=comparison, how="anti"), decided])


def _takes_part(material: Material, row: dict[str, Any], cell: Cell) -> bool:
    """Whether a cell is of either side of a comparison."""
    model = material.params.models[cell.model]
    if (cell.dataset, model.family) != (row["dataset"], row["family"]) or model.role not in SIDES:
        return False
    knows = cell.dataset in model.in_domain
    return bool(cell.mode == row[f"{model.role}_mode"]) and (model.role == "generalist" or knows != (row["question"] == "rq3"))


def ordered(material: Material, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of gaps by question, mode, family and data set, in the order of the run."""
    datasets, modes = list(material.params.datasets), list(material.params.modes)
    families = list(dict.fromkeys(model.family for model in material.params.models.values()))
    order = {"question": list(QUESTIONS), "adaptation": modes, "family": families, "dataset": datasets}
    return rows.sort(*(_position(column, values) for column, values in order.items()))


def parts(material: Material) -> list[Part]:
    """All questions that the run has comparisons for."""
    return [
        _part(material, str(question), str(adaptation), rows)
        for (question, adaptation), rows in deciding(material).group_by("question", "adaptation", maintain_order=True)
    ]


def by_judges(material: Material) -> list[Part]:
    """The same by the judges' scores of open answers, where there are any: comparisons of their own."""
    return [
        _part(material, str(question), str(adaptation), rows)._replace(pooled=[], confirmed="", confirmatory=[])
        for (question, adaptation), rows in deciding(material, secondary=True).group_by("question", "adaptation", maintain_order=True)
    ]


def unasked(params: Params) -> list[str]:
    """A sentence for every question that the run has no cells for, with the reason: `RQ1 is not asked: no clip specialist knows ...`."""
    models = {name: model for name, model in params.models.items() if model.role != "baseline"}
    cells = [cell for cell in params.cells if cell.model in models]
    off_the_shelf = {cell for cell in cells if params.modes[cell.mode].kind == "zero-shot"}
    reasons = {}
    for question in QUESTIONS:
        if question in ("rq1", "rq2") and not off_the_shelf:
            reasons[question] = ["no model stands off the shelf"]
        elif question != "rq1" and len(off_the_shelf) == len(cells):
            reasons[question] = ["no model is adapted"]
        else:
            families = dict.fromkeys(model.family for model in models.values())
            found = [_lacks(question, family, models, cells, params) for family in families]
            if all(found):
                reasons[question] = found
    return [f"{question.upper()} is not asked: {listed(found, 4)}." for question, found in reasons.items()]


def _lacks(question: str, family: str, models: Mapping[str, ModelFacts], cells: Sequence[Cell], params: Params) -> str:
    """Why a family has no comparison of a question; empty where it has one."""
    roles = {role: {name for name, model in models.items() if (model.family, model.role) == (family, role)} for role in SIDES}
    if lacking := [role for role in SIDES if not roles[role]]:
        return f"{family} has no {lacking[0]}"
    common = set.intersection(*({cell.dataset for cell in cells if cell.model in roles[role]} for role in SIDES))
    known = {name for name in common if any(name in models[one].in_domain for one in roles["specialist"])}
    new = {name for name in common if any(name not in models[one].in_domain for one in roles["specialist"])}
    if new if question == "rq3" else known:
        return ""
    names = listed([facts.label for name, facts in params.datasets.items() if name in common], 4)
    if not names:
        return f"{family} has no data set for both sides"
    return f"every {family} specialist knows {names}" if question == "rq3" else f"no {family} specialist knows {names}"


def overview(found: list[Part]) -> Overview:
    """Verdict counts of every family and part."""
    families = dict.fromkeys(line.family for part in found for line in part.lines)
    return Overview(
        [part.title for part in found],
        [(family, [_counts([line.verdict for line in part.lines if line.family == family]) for part in found]) for family in families],
    )


def text(found: list[Part], params: Params, advised: Sequence[str] = ()) -> str:
    """What a start ends with: what to use, a line a question and adaptation, and why others are not asked."""
    said = [line for part in found for line in (f"{part.title}: {part.summary}", part.confirmed) if line]
    more = [f"and {len(advised) - MOST_ADVISED} more data sets, on the page"] if len(advised) > MOST_ADVISED else []
    return "".join(f"{line}\n" for line in [*advised[:MOST_ADVISED], *more, *said, *unasked(params)])


def advice(material: Material) -> list[str]:
    """Of each data set what to use, in one sentence: `For my-set: use the generalist CLIP, linear probe (0.912). ...`.

    Both sides adapted decide before one side adapted, and that before neither, since who has labels adapts either. Of several comparisons
    that one speaks whose better side is the best.
    """
    rows, said = deciding(material), []
    for name, facts in material.params.datasets.items():
        own = rows.filter(pl.col("dataset") == name).to_dicts()
        asked = next((asked for asked in (("rq3", "rq4"), ("rq2",), ("rq1",)) if any(row["question"] in asked for row in own)), ())
        chosen = [row for row in own if row["question"] in asked]
        if not chosen:
            said.append(f"For {facts.label}: nothing is compared with each other.")
            continue
        best = max(
            chosen, key=lambda row: max([row[f"{side}_estimate"] for side in SIDES if row[f"{side}_estimate"] is not None] or [-1.0])
        )
        others = sum((row["verdict"] or NO_VERDICT) != (best["verdict"] or NO_VERDICT) for row in chosen)
        more = f" {counted(others, 'other comparison')} of this data set {'ends' if others == 1 else 'end'} otherwise." if others else ""
        said.append(f"For {facts.label}: {_use(material, best)}{more}")
    return said


def _use(material: Material, row: dict[str, Any]) -> str:
    """What a comparison means for whoever must choose."""
    names = {side: _named(material, row, side) for side in SIDES}
    verdict, other = row["verdict"], {"generalist": "specialist", "specialist": "generalist"}
    if verdict in SIDES:
        lead = f"It leads the {other[verdict]} {names[other[verdict]]} by {number(abs(row['gap']))}"
        return f"use the {verdict} {names[verdict]}. {lead}{', less than the margin' if _is_within(material, row) else ''}."
    if verdict == "equivalent":
        margin = number(material.params.margin(row["metric"]))
        other_side = f"The specialist {names['specialist']} is equivalent (within {margin})"
        return f"use the generalist {names['generalist']}. {other_side}: the cheaper will do."
    if verdict == "undecided":
        needs = _more_groups(row) or "more test patients would decide it"
        return f"undecided between the generalist {names['generalist']} and the specialist {names['specialist']}: {needs}."
    reason = (row["reason"] or "no reason is noted").removesuffix(f": {NO_VERDICT}")
    return f"no verdict ({reason}).{_too_few(material, row)}"


def _named(material: Material, row: dict[str, Any], side: str) -> str:
    """`CLIP, linear probe (0.912)`."""
    if row[side] not in material.params.models:
        return str(row[side])
    label, mode = material.params.models[row[side]].label, material.params.mode_label(row[f"{side}_mode"])
    return f"{label}, {mode} ({number(row[f'{side}_estimate'])})"


def _too_few(material: Material, row: dict[str, Any]) -> str:
    """How many more groups a verdict needs, where its reason is that there are too few; else empty. An interval needs fewer."""
    found = re.search(r"(\d+) effective groups?, fewer than (\d+)", row["reason"] or "")
    if not found:
        return ""
    missing = max(int(found[2]), material.params.statistics["min_groups"]) - int(found[1])
    has_classes = TASKS[material.params.datasets[row["dataset"]].task].rows == "labels"
    return f" About {_patients(missing)}{' of the rarest class' if has_classes else ''} would do."


def _part(material: Material, question: str, adaptation: str, rows: pl.DataFrame) -> Part:
    lines = [_line(material, row) for row in rows.to_dicts()]
    chosen = material.confirmatory.filter(pl.col("question") == question, pl.col("adaptation") == adaptation)
    confirmatory = [_line(material, row) for row in ordered(material, chosen).to_dicts()] if _had_a_choice(rows) else []
    key = f"{question}-{adaptation}"
    return Part(
        key,
        question_title(question, material.params.mode_label(adaptation)),
        material.params.mode_label(adaptation),
        QUESTIONS[question],
        _summary(lines),
        lines,
        _pooled(material, question, adaptation),
        f"Chosen on validation data and tested once: {(said := _summary(confirmatory))[0].lower()}{said[1:]}" if confirmatory else "",
        confirmatory,
    )


def _had_a_choice(rows: pl.DataFrame) -> bool:
    """Whether a side of any comparison has several models."""
    return bool(rows.select(pl.max_horizontal("n_generalists", "n_specialists").max() > 1).item())


def _line(material: Material, row: dict[str, Any]) -> Line:
    models = material.params.models
    sides = [
        f"{models[row[side]].label}, {material.params.mode_label(row[f'{side}_mode'])}: {number(row[f'{side}_estimate'])}"
        + _on_validation(row.get(f"{side}_validation"))
        for side in ("generalist", "specialist")
        if row[side] in models  # where nobody can be compared, the side names no model, and `reason` says why
    ]
    return Line(
        row["family"],
        material.params.datasets[row["dataset"]].label,
        row["verdict"] or NO_VERDICT,
        signed(row["gap"]),
        interval(row["low"], row["high"], sign=True),
        " against ".join(sides) + _on_some(material, row),
        p_value(row["p_holm"]),
        number(row["minimum_detectable_difference"]),
        row["reason"] or (WITHIN if _is_within(material, row) else _more_groups(row)),
        _bias(row["selection_bias"]),
    )


def _more_groups(row: dict[str, Any]) -> str:
    """How many more test patients of all classes an undecided comparison needs: a gap's sd falls with the root of their number."""
    gap, detectable, groups = (row[name] for name in ("gap", "minimum_detectable_difference", "n_groups"))
    if row["verdict"] != "undecided" or not gap or not detectable or not groups:
        return ""
    times = (detectable / abs(gap)) ** 2
    if times <= 1:
        return ""
    if times > MOST_TIMES:
        return f"a gap of this size would take more than {MOST_TIMES} times as many test patients"
    more = math.ceil(groups * (times - 1))
    return f"a gap of this size would take about {_patients(more)} like these"


def _patients(more: int) -> str:
    return counted(more, "more test patient (or other group)", "more test patients (or other groups)")


def _on_some(material: Material, row: dict[str, Any]) -> str:
    """On how many test samples two sides are compared, where it is not on all."""
    n, total = row["n_pair"], n_test(material, row)
    return f", on {n:,} of {counted(total, 'test sample')}" if n is not None and total and n < total else ""


def _on_validation(value: float | None) -> str:
    return f" ({number(value)} on validation)" if value is not None else ""


def _bias(value: float | None) -> str:
    return f"selection bias {signed(value)}" if value else ""


def _is_within(material: Material, row: dict[str, Any]) -> bool:
    """Whether a side is ahead by less than matters."""
    p = row["p_equivalent"]
    return row["verdict"] in SIDES and p is not None and is_within(p, material.params.statistics["level"])


def _summary(lines: list[Line]) -> str:
    """`Of 4 comparisons, the specialist leads in 2 (CLIP on Radiology and CLIP on Pathology); 2 undecided.`"""
    places = {name: [f"{line.family} on {line.dataset}" for line in lines if line.verdict == name] for name in (*VERDICTS, NO_VERDICT)}
    leads = {"specialist": "the specialist leads in", "generalist": "the generalist leads in", "equivalent": "both are equivalent in"}
    within = {name: sum(line.verdict == name and line.note == WITHIN for line in lines) for name in leads}
    said = [
        f"{words} {len(places[name])} ({listed(places[name], 4)}{f'; {within[name]} within the margin' if within[name] else ''})"
        for name, words in leads.items()
        if places[name]
    ]
    said += [f"{len(places['undecided'])} undecided"] if places["undecided"] else []
    if places[NO_VERDICT]:
        notes = dict.fromkeys(line.note.removesuffix(f": {NO_VERDICT}") for line in lines if line.verdict == NO_VERDICT)
        said.append(f"{len(places[NO_VERDICT])} without a verdict ({'; '.join([*notes][:2])}{'; ...' if len(notes) > 2 else ''})")
    return f"Of {counted(len(lines), 'comparison')}, {'; '.join(said)}."


def _counts(verdicts: list[str]) -> str:
    return ", ".join(f"{verdicts.count(name)} {name}" for name in (*VERDICTS, NO_VERDICT) if name in verdicts) or "not asked"


def _pooled(material: Material, question: str, adaptation: str) -> list[str]:
    """Families whose gap could be pooled over data sets."""
    primary = pl.any_horizontal(
        *(
            (pl.col("metric") == chosen.metric) & (pl.col("scoring") == chosen.scoring)
            for chosen in (task.primary for task in TASKS.values())
        )
    )
    rows = material.pooled.filter(primary, pl.col("question") == question, pl.col("adaptation") == adaptation, pl.col("gap").is_not_null())
    return [
        f"{row['family']} over {row['k']} data sets: {signed(row['gap'])} {interval(row['low'], row['high'], sign=True)}".strip()
        for row in rows.to_dicts()
    ]


def _position(column: str, values: list[str]) -> pl.Expr:
    """Sort key: the place of a value in a list, others last."""
    return pl.col(column).cast(pl.String).replace_strict(values, list(range(len(values))), default=len(values), return_dtype=pl.Int32)
