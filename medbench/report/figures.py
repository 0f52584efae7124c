"""Figures as Vega-Lite charts: heatmaps of the primary metric, and gaps with their intervals.

Colours are safe for colour-blind readers (Okabe and Ito 2008; blue-orange around chance). Every chart is drawn once: `figures/` gets it
on white, the page gets the same SVG with ink and lines taken from the page, so that it follows light and dark.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import polars as pl
import vl_convert

from medbench.errors import visible
from medbench.report.words import number, question_title, signed

INK, FAINT, PAPER = "#1b1c1e", "#c9cbcf", "#fefefe"  # replaced by the page's own colours when a figure stands in the page
QUESTION_COLOURS = {"rq1": "#0072b2", "rq2": "#d55e00", "rq3": "#009e73", "rq4": "#cc79a7"}
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"  # the first comes with vl-convert, so text is measured alike everywhere
MAX_PANEL_CELLS = 600  # more squares than this are unreadable and make the page slow
MAX_GAPS = 150  # lines of one gap figure
Data = dict[str, list[dict[str, Any]]]
LABEL_LIMIT = 280  # pixels; longer names are cut with an ellipsis
CELL_WIDTH, CELL_HEIGHT, GAP_WIDTH, GAP_HEIGHT = 62, 30, 380, 24


class Figure(NamedTuple):
    """`svg` as written to `figures/{name}.svg`; `alt` says in words what is to be seen."""

    name: str
    title: str
    alt: str
    svg: str


class Square(NamedTuple):
    """One field of a heatmap; `value` is null where `text` says why not."""

    row: str
    column: str
    value: float | None
    text: str
    in_domain: bool


def heatmap(name: str, title: str, squares: list[Square], chance: float | None, alt_text: str) -> Figure:
    """Models down, data sets across, in the order given; values stand in the squares, in-domain ones have a dark frame."""
    rows, columns = (list(dict.fromkeys(getattr(square, side) for square in squares)) for side in ("row", "column"))
    scale = alt.Scale(domain=[0, 1], scheme="blues", clamp=True)
    if chance is not None:  # orange below chance, blue above; full colour already at .5 from it would hide all differences
        scale = alt.Scale(domain=[chance - 0.5, chance, chance + 0.5], range=["#b35806", "#f7f7f7", "#0b5394"], clamp=True)
    base = alt.Chart(alt.NamedData("squares")).encode(
        x=alt.X("column:N", sort=columns, title=None, axis=_bare(orient="top", labelAngle=-35 if _long(columns) else 0)),
        y=alt.Y("row:N", sort=rows, title=None, axis=_bare()),
    )
    grounds = base.mark_rect(color="#e4e4e4")  # shows where there is no value
    fills = base.mark_rect().encode(color=alt.Color("value:Q", scale=scale, legend=None))
    frames = base.transform_filter("datum.in_domain").mark_rect(fill=None, stroke=INK, strokeWidth=2)
    far = f"abs(datum.value - {chance}) > 0.36" if chance is not None else "datum.value > 0.72"
    values = base.mark_text(fontSize=13).encode(
        text="text:N", color=alt.condition(f"isValid(datum.value) && {far}", alt.value("#fdfdfd"), alt.value("#111111"))
    )
    chart = (grounds + fills + frames + values).properties(width=CELL_WIDTH * len(columns), height=CELL_HEIGHT * len(rows))
    return Figure(name, title, alt_text, _svg(chart, {"squares": [square._asdict() for square in squares]}))


def forest(name: str, title: str, gaps: pl.DataFrame, label: str, margin: float, alt_text: str) -> Figure:
    """One panel a question and adaptation, one line a family and data set: the gap, its interval, zero, and the margin as a band.

    `gaps`: columns question, mode (in words), row, gap, low, high, verdict; nulls in `gap` left out before. A filled point has a verdict.
    """
    reach = max(margin * 2, *(abs(value) for column in ("gap", "low", "high") for value in gaps[column].drop_nulls()), 0.0) * 1.08
    scale = alt.Scale(domain=[-reach, reach], nice=False)
    silent = alt.Axis(title=None, labels=False, ticks=False, tickCount=7)
    spoken = alt.Axis(
        title=f"← specialist higher   |   gap in {label}   |   generalist higher →",
        format="+.2f",
        labelExpr="datum.value == 0 ? '0' : datum.label",
        tickCount=7,
    )
    labels = min(LABEL_LIMIT, 7 * max(map(len, gaps["row"])))  # equal room in every panel, so that they share one x axis
    parts = list(gaps.group_by("question", "mode", maintain_order=True))
    data: Data = {"one": [{"zero": 0, "from": -margin, "to": margin}]}
    panels = []
    for (question, mode), part in parts:
        heading = question_title(str(question), str(mode))
        data[heading] = [
            row | {"note": f"{signed(row['gap'])} {row['verdict'] or 'no verdict'}", "decided": row["verdict"] not in (None, "undecided")}
            for row in part.select("row", "gap", "low", "high", "verdict").to_dicts()
        ]
        axis = spoken if part is parts[-1][1] else silent
        panels.append(_panel(heading, part["row"].to_list(), QUESTION_COLOURS[str(question)], scale, axis, labels))
    return Figure(name, title, alt_text, _svg(alt.vconcat(*panels, spacing=14), data))


def _panel(heading: str, rows: list[str], colour: str, scale: alt.Scale, axis: alt.Axis, labels: int) -> Any:
    """The lines of one question (data set named `heading`): interval, point, and at the right the gap and the verdict as text."""
    data = alt.Chart(alt.NamedData(heading)).encode(
        y=alt.Y("row:N", sort=rows, title=None, axis=alt.Axis(labelLimit=LABEL_LIMIT, minExtent=labels, maxExtent=labels, ticks=False))
    )

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=scale, axis=axis)

    rule = data.mark_rule(color=colour, strokeWidth=2).encode(x=x("low"), x2="high:Q")
    fill = alt.condition("datum.decided", alt.value(colour), alt.value(PAPER))
    points = data.mark_point(size=70, color=colour, strokeWidth=2, opacity=1).encode(x=x("gap"), fill=fill)
    notes = data.mark_text(align="left", dx=10, fontSize=12, color=INK).encode(x=alt.value(GAP_WIDTH), text="note:N")
    one = alt.Chart(alt.NamedData("one"))
    band = one.mark_rect(color="#808080", opacity=0.18).encode(x=x("from"), x2="to:Q")
    zero = one.mark_rule(color=INK, strokeWidth=1).encode(x=x("zero"))
    title = alt.TitleParams(heading, anchor="start", frame="bounds", fontSize=13, color=INK)
    return (band + zero + rule + points + notes).properties(width=GAP_WIDTH, height=GAP_HEIGHT * len(rows), title=title)


def _bare(**options: Any) -> alt.Axis:
    return alt.Axis(domain=False, ticks=False, labelLimit=LABEL_LIMIT, labelPadding=6, **options)


def _long(columns: list[str]) -> bool:
    return max(map(len, columns)) * 7 > CELL_WIDTH


def _svg(chart: Any, data: Data) -> str:
    """Draw a chart. `data` comes last, since altair copies a chart at every step; `aria` is off: the page describes the figure."""
    styled = chart.configure(font=FONT, background=PAPER, aria=False).configure_view(stroke=None)
    styled = styled.configure_axis(
        labelColor=INK,
        titleColor=INK,
        gridColor=FAINT,
        domainColor=FAINT,
        tickColor=FAINT,
        labelFontSize=13,
        titleFontSize=13,
        titleFontWeight="normal",
    )
    return str(vl_convert.vegalite_to_svg(_spelled({**styled.to_dict(), "datasets": data})))


def _spelled(value: Any) -> Any:
    """A specification whose texts hold no control characters: neither XML nor Vega's expressions take them all."""
    if isinstance(value, dict):
        return {visible(name): _spelled(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_spelled(one) for one in value]
    return visible(value) if isinstance(value, str) else value


def write(figure: Figure, folder: Path) -> None:
    """`{name}.svg` and `{name}.png` (twice the pixels, for slides and print)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
    (folder / f"{figure.name}.png").write_bytes(vl_convert.svg_to_png(figure.svg, scale=2))


def inline(figure: Figure) -> str:
    """The SVG for the page: own ids, the page's ink, lines and paper; it shrinks by a quarter at most, then its box scrolls."""
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{figure.name}-", figure.svg)
    for colour, name in ((INK, "ink"), (FAINT, "line"), (PAPER, "paper")):
        svg = svg.replace(f'="{colour}"', f'="var(--{name})"')
    width = re.search(r'width="(\d+)"', svg)
    least = f"min-width:{int(width[1]) * 3 // 4}px" if width else ""
    return svg.replace("<svg ", f'<svg aria-hidden="true" focusable="false" style="{least}" ', 1)


def square_text(value: float | None) -> str:
    """What stands in a heatmap's field."""
    return "n/a" if value is None else number(value)
