"""The page: one HTML file that needs nothing beside it, no network and no script."""

import base64
from typing import Any, NamedTuple

import jinja2
import polars as pl
from markupsafe import Markup

import medbench
from medbench import tasks
from medbench.errors import visible
from medbench.report import answer, export, judged, leak_free, multiple_choice, results, sample_sheet
from medbench.report.cautions import Caution, worths
from medbench.report.figures import Figure, inline
from medbench.report.panels import Panel
from medbench.report.params import TEMPLATES
from medbench.report.results import Material
from medbench.report.words import NOTHING, counted, listed, number, with_interval

MAX_LINES, MAX_PLACES, MAX_ROWS, MAX_CELLS = 150, 12, 100, 400  # beyond these the page points to the tables
PROOF = ("method", "n_train", "n_val", "parameters_trained", "n_trainable", "n_with_gradient", "loss_start", "loss_end")
CLOSED, PARSED = "closed_accuracy", "closed_accuracy_parsed"
SECTIONS = {
    "answer": "The answer",
    "gaps": "The gaps",
    "reached": "What each model reaches",
    "choices": "Multiple choice",
    "cautions": "What not to trust",
    "images": "What the images look like",
    "overlap": "What data sets share",
    "absent": "Absent cells",
    "facts": "Facts of the run",
}


class Parts(NamedTuple):
    """What stands on the page besides the material itself."""

    gap_figures: list[Figure]
    panels: list[Panel]
    judged_figures: list[Figure]
    cautions: list[Caution]
    sheets: list[sample_sheet.Sheet]
    tables: list[str]


def render(material: Material, parts: Parts) -> str:
    """The whole page. Every text is escaped, control characters are spelled out; only the figures' SVG goes in as it is."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["inline"] = lambda figure: Markup(inline(figure))
    answers, grids = answer.parts(material), multiple_choice.grids(material)
    statistics = material.params.statistics
    page = environment.get_template("report.html").render(
        run=material.run,
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        version=medbench.__version__,
        lead=_lead(material),
        sections=[(name, title) for name, title in SECTIONS.items() if grids or name != "choices"],
        grids=grids,
        titles=SECTIONS,
        parts=answers,
        overview=answer.overview(answers),
        no_verdict=answer.NO_VERDICT,
        advised=answer.advice(material),
        unasked=answer.unasked(material.params),
        reading=_reading(material),
        level=f"{statistics['level']:.0%}",
        margin=_margins(material),
        gap_figures=parts.gap_figures,
        panels=parts.panels,
        judged_figures=parts.judged_figures,
        worths=worths(material),
        cautions=parts.cautions,
        sheets=[_sheet(material, sheet) for sheet in parts.sheets],
        leak_free_counts=leak_free.counts(material),
        leak_free_lines=leak_free.lines(material),
        choices=choices(material),
        judges=judged.judges(material.judged, material.params),
        judged_parts=answer.by_judges(material) if material.judged.judgements.height else [],
        judged_scores=judged.scores(material.judged, material.params, material.metrics),
        agreements=judged.agreements(material.judged),
        wording=_wording(material),
        open_titles=list(OPEN.values()),
        open_lines=_open(material),
        n_gaps=answer.deciding(material)["gap"].count(),
        overlap=[_shared(material, row) for row in material.overlap.to_dicts()],
        absent=[{**gone._asdict(), "cell": str(gone.cell), "command": export.command(gone.cell)} for gone in material.absent],
        facts=_facts(material),
        models=[{**model._asdict(), "in_domain": _in_domain(material, model.in_domain)} for model in material.params.models.values()],
        cells=_cells(material),
        tables=parts.tables,
        max_lines=MAX_LINES,
        max_places=MAX_PLACES,
        max_rows=MAX_ROWS,
        max_cells=MAX_CELLS,
    )
    return visible(page)


OPEN = {"token_recall": "Token recall", "token_f1": "Token F1", "rouge_l_f": "ROUGE-L F", "exact_match": "Exact match"}
"""Strict metrics of open answers -> their titles."""


class OpenLine(NamedTuple):
    """How a cell answers open questions: one text for each metric of `OPEN`, with its interval."""

    label: str
    model: str
    mode: str
    n: str
    values: list[str]


def _open(material: Material) -> list[OpenLine]:
    """Every cell of a data set with open questions."""
    chosen = {"scoring": "strict", "subset": "open", "method": "logit"}
    rows = material.metrics.filter(*(pl.col(name) == value for name, value in chosen.items()), pl.col("metric").is_in(list(OPEN)))
    lines, cell = [], ["dataset_label", "model_label", "mode"]
    for (dataset, model, mode), frame in rows.drop_nulls("estimate").group_by(cell, maintain_order=True):
        values = {row["metric"]: with_interval(row["estimate"], row["low"], row["high"]) for row in frame.to_dicts()}
        n, label = f"{max(frame['n'].to_list()):,}", material.params.mode_label(str(mode))
        lines.append(OpenLine(str(dataset), str(model), label, n, [values.get(name, "") for name in OPEN]))
    return lines


class ChoiceLine(NamedTuple):
    """Closed answers of one cell that hold no choice, and its accuracy with and without them, as text."""

    label: str
    model: str
    mode: str
    lost: str  # how many, and why
    wrong: str  # accuracy where they count as wrong
    left_out: str


def choices(material: Material) -> list[ChoiceLine]:
    """Of every cell that has such answers: the two bounds of its accuracy."""
    key = ["dataset", "model", "mode"]
    chosen = material.metrics.filter(pl.col("metric").is_in([CLOSED, PARSED]), pl.col("subset") == "closed", pl.col("method") == "logit")
    values = {(row["metric"], *(row[name] for name in key)): row for row in chosen.to_dicts()}
    lines = []
    for row in material.answers.to_dicts():
        cell = tuple(row[name] for name in key)
        lost = [f"{row[state]:,} {state}" for state in results.LOST if row[state]]
        if lost and (wrong := values.get((CLOSED, *cell))):
            bounds = [
                with_interval(one["estimate"], one["low"], one["high"]) if one else NOTHING for one in (wrong, values.get((PARSED, *cell)))
            ]
            names = wrong["dataset_label"], wrong["model_label"], material.params.mode_label(row["mode"])
            lines.append(ChoiceLine(*names, f"{', '.join(lost)} of {row['n_closed']:,}", *bounds))
    return lines


class WordingLine(NamedTuple):
    """Zero-shot AUROC of one model on one data set over the prompt sets, as text."""

    label: str
    model: str
    main: str
    others: str
    width: str


def _wording(material: Material) -> list[WordingLine]:
    """Where there is more than one prompt set."""
    lines = []
    key = ["dataset_label", "model_label", "mode"]
    for (dataset, model, _), frame in material.wording.drop_nulls("estimate").group_by(key, maintain_order=True):
        values = dict(zip(frame["prompt_set"], frame["estimate"], strict=True))
        if len(values) > 1 and "main" in values:
            others = ", ".join(f"{name} {number(value)}" for name, value in values.items() if name != "main")
            width = max(values.values()) - min(values.values())
            lines.append(WordingLine(str(dataset), str(model), number(values["main"]), others, number(width)))
    return lines


def _lead(material: Material) -> str:
    params = material.params
    models = sum(model.role != "baseline" for model in params.models.values())
    text = f"{counted(models, 'model')} on {counted(len(params.datasets), 'data set')}: "
    text += f"{len(material.present):,} of {counted(len(params.cells), 'cell')} are there."
    return text + (
        f" {counted(len(material.absent), 'cell')} could not be made and are listed below; what follows rests on the others."
        if material.absent
        else ""
    )


def _reading(material: Material) -> str:
    statistics = material.params.statistics
    return (
        "How to read it: a gap is the generalist's value minus the specialist's, each the best of its side. "
        f"The verdict is generalist or specialist where one side is better beyond chance "
        f"(p below {1 - statistics['level']:.2g} after Holm's correction over the comparisons of one question and adaptation), "
        f"equivalent where both are shown to lie within the margin ({_margins(material)}, corrected likewise), and undecided otherwise: "
        "then the data cannot tell, which is not the same as no difference. "
        "Verdict, p and minimum detectable difference are of all models of either side and corrected; gap and interval are of the two "
        "best, not corrected, and favour the side with more models: selection bias is what the gap would be on average if all models "
        "were equal. Where a side has several models, the confirmatory analysis has no such bias: validation data choose one model a side, "
        "which is tested once. "
        "RQ2 sets an adapted generalist against a specialist as it is, so its gap holds what adaptation gives too; RQ4 adapts both. "
        "Intervals resample patients or groups, not single images, where groups are known."
    )


def _sheet(material: Material, sheet: sample_sheet.Sheet) -> dict[str, Any]:
    facts = material.params.datasets[sheet.dataset]
    task = tasks.get(facts.task)
    asked = task.asked is not None
    rows = [
        {
            "label": row.label,
            "count": counted(row.n, f"test {task.noun}"),
            "asked": asked,
            "tiles": [
                {
                    "data": base64.b64encode(tile.picture).decode(),
                    "alt": f"Image of the question: {tile.question}" if asked else f"{facts.label}, {row.label}, example {place}",
                    "question": tile.question,
                    "answer": tile.answer,
                }
                for place, tile in enumerate(row.tiles, 1)
            ],
        }
        for row in sheet.rows
        if row.tiles
    ]
    return {
        "label": facts.label,
        "note": facts.note,
        "rows": rows,
        "left_out": sheet.left_out,
        "as_read": _as_read(material.cards.get(sheet.dataset, {})),
    }


def _as_read(card: dict[str, Any]) -> str:
    """Which images are not shown as their files have them, by its card."""
    images = card.get("images", {})
    converted = [f"{counted(found['images'], 'image')}: {why}" for why, found in images.get("converted", {}).items()]
    scales = images.get("scale", {})
    parts = [f"Of {counted(images['distinct'], 'image')}, converted when they were read: {'; '.join(converted)}."] if converted else []
    for kind, scale in scales.items():
        if "bits" in scale:
            own = "; ".join(f"{depth} bits: {counted(number, 'image')}" for depth, number in scale["images_by_bits"].items())
            ends = f"{scale['bits']} bits, the largest value is {scale['largest']} (by what an image alone would need, {own})"
        else:
            ends = f"from {scale['black']:.6g} to {scale['white']:.6g}"
        parts.append(f"All {kind} of more than 8 bits have one scale: {ends}.")
    return " ".join(parts)


def _shared(material: Material, row: dict[str, Any]) -> dict[str, str]:
    labels = {name: facts.label for name, facts in material.params.datasets.items()}
    return {
        "first": f"{labels.get(row['dataset'], row['dataset'])}, {row['split']}",
        "second": f"{labels.get(row['other_dataset'], row['other_dataset'])}, {row['other_split']}",
        "kind": row["kind"],
        "shared": f"{row['shared']:,} of {row['total']:,}",
        "examples": " ".join(row["examples"]),
    }


def _facts(material: Material) -> list[tuple[str, str]]:
    statistics = material.params.statistics
    found: dict[str, set[str]] = {}
    for record in material.records.values():
        for library, version in record.get("versions", {}).items():
            found.setdefault(library, set()).add(version)
    versions = ", ".join(f"{library} {' and '.join(sorted(used))}" for library, used in sorted(found.items()))
    return [
        ("Run", material.run),
        ("Seed", str(material.params.seed)),
        (
            "Intervals",
            f"{statistics['level']:.0%} bootstrap on the logit scale, of gaps by expanded percentiles, "
            f"{statistics['n_resamples']:,} resamples; "
            "percentile intervals of all metrics, as the study publishes them, in tables/metrics.csv",
        ),
        (
            "Primary metrics",
            f"{max(statistics['n_resamples'], statistics['n_test_resamples']):,} resamples for interval and p; "
            f"a verdict needs at least {statistics['min_groups']} effective groups",
        ),
        ("Equivalence margin", _margins(material)),
        ("medbench", medbench.__version__),
        ("Libraries of the predictions", versions or "not recorded"),
    ]


def _margins(material: Material) -> str:
    """`0.020`, or where the run's tasks differ `AUROC 0.020, closed accuracy 0.050`."""
    used = dict.fromkeys(facts.task for facts in material.params.datasets.values())
    margins = {tasks.get(name).title: number(material.params.margin(tasks.get(name).primary.metric)) for name in used}
    alike = len(set(margins.values())) == 1
    return next(iter(margins.values())) if alike else ", ".join(f"{title} {margin}" for title, margin in margins.items())


def _in_domain(material: Material, names: tuple[str, ...]) -> str:
    return listed([material.params.datasets[name].label for name in names]) or "none"


def _cells(material: Material) -> list[dict[str, str]]:
    return [
        {
            "name": str(cell),
            "certificate": _proof(material.certificates.get(cell, {})),
            "command": export.command(cell),
        }
        for cell in material.params.cells
    ]


def _proof(certificate: dict[str, Any]) -> str:
    """What a certificate proves, in short; all of it stands in tables/cells.csv."""
    shown = {name: certificate[name] for name in PROOF if name in certificate}
    return "; ".join(
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in shown.items()
    )
